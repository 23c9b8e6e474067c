/* The same work at each server: members come in, some of them talk, everybody receives.
 *
 *   generator DIALECT PORT SERVER_PID key=value …
 *
 *   members=100        sessions in the one room
 *   ways=1             2: each session has two connections, says everything on both and receives everything on both
 *   at_once=64         how many may be on their way in
 *   join=1             0: they register and stay outside of the room, where a server has sessions outside of one
 *   senders=0          how many of them talk; 0: nobody does; more than members: some speak for several
 *   window=64          how many messages may be on their way in all
 *   rate=0             messages per second in all, evenly spaced; 0: as many as the window allows
 *   warmup_ms=500      before it measures
 *   measure_ms=2000
 *
 * Prints one JSON object. A delivery is one to a session, over however many connections. Latency counts from when the message was to be sent (with a rate) or was sent (with a window)
 * to when this program read it. Exit code 1 and a sentence when the server refuses or falls silent.
 */
#define _GNU_SOURCE
#include "dialect.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define READ_BYTES (256u << 10)
#define SILENCE_NS 20000000000ull
#define SECOND_NS 1000000000ull

enum stage { CONNECTING, GREETED, WELCOMED, INSIDE };

struct member {
    int fd, number;
    enum stage stage;
    char *rest;
    size_t rest_bytes;
    uint64_t said, received;
    char *attach; /* of a session's second connection: what it says first */
};

static const struct dialect *dialect;
static struct sockaddr_in server = {.sin_family = AF_INET};
static int server_pid, epoll_fd, inside;
static struct member *members;
static long count = 100, ways = 1, at_once = 64, join = 1, senders = 0, window = 64, rate = 0, warmup_ms = 500, measure_ms = 2000;
static uint64_t said, delivered, heard_ns;

static void die(const char *format, ...)
{
    va_list values;
    va_start(values, format);
    fprintf(stderr, "generator: ");
    vfprintf(stderr, format, values);
    fprintf(stderr, "\n");
    exit(1);
}

static uint64_t clock_ns(clockid_t clock)
{
    struct timespec time;
    if (clock_gettime(clock, &time) < 0)
        die("the server has ended");
    return (uint64_t)time.tv_sec * SECOND_NS + (uint64_t)time.tv_nsec;
}

static uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }

/* Latencies in ns, to 1/64 of each: their count by power of two and the next six bits. */

static uint64_t latencies[64 * 64], latency_count;

static void note_latency(uint64_t ns)
{
    int shift = ns < 64 ? 0 : 63 - __builtin_clzll(ns) - 6;
    latencies[(ns >> shift) + (uint64_t)shift * 64]++;
    latency_count++;
}

static double percentile_us(double share)
{
    uint64_t wanted = (uint64_t)((double)latency_count * share), seen = 0;
    for (uint64_t cell = 0; cell < 64 * 64; cell++)
        if ((seen += latencies[cell]) > wanted) {
            uint64_t shift = cell < 128 ? 0 : cell / 64 - 1;
            return (double)((cell - shift * 64) << shift) / 1e3;
        }
    return 0;
}

/* What the processes have used. */

struct usage {
    uint64_t at_ns, server_ns, own_ns, server_waited_ns, own_waited_ns;
};

static uint64_t waited_ns(int pid)
{
    char path[64];
    unsigned long long ran = 0, waited = 0;
    sprintf(path, "/proc/%d/schedstat", pid);
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%llu %llu", &ran, &waited) != 2)
        waited = 0;
    if (file)
        fclose(file);
    return waited;
}

static struct usage usage(void)
{
    clockid_t clock;
    if (clock_getcpuclockid(server_pid, &clock))
        die("there is no process %d", server_pid);
    return (struct usage){now_ns(), clock_ns(clock), clock_ns(CLOCK_PROCESS_CPUTIME_ID), waited_ns(server_pid),
                          waited_ns(getpid())};
}

static long server_rss_bytes(void)
{
    char path[64];
    long size, resident = 0;
    sprintf(path, "/proc/%d/statm", server_pid);
    FILE *file = fopen(path, "r");
    if (!file || fscanf(file, "%ld %ld", &size, &resident) != 2)
        die("the server has ended");
    fclose(file);
    return resident * sysconf(_SC_PAGESIZE);
}

/* Members. */

static void put(struct member *member, const char *data, size_t length)
{
    while (length) {
        ssize_t sent = send(member->fd, data, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN)
            usleep(100); /* the window is far smaller than the socket's buffer: this is rare */
        else if (sent < 0)
            die("member %d cannot send: %s", member->number, strerror(errno));
        else
            data += sent, length -= (size_t)sent;
    }
}

static void watch(struct member *member, int operation, uint32_t what)
{
    struct epoll_event event = {.events = what, .data.ptr = member};
    if (epoll_ctl(epoll_fd, operation, member->fd, &event) < 0)
        die("epoll_ctl: %s", strerror(errno));
}

static void begin(struct member *member)
{
    int on = 1;
    member->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (member->fd < 0)
        die("no socket for member %d: %s", member->number, strerror(errno));
    setsockopt(member->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(member->fd, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS)
        die("member %d cannot connect: %s", member->number, strerror(errno));
    watch(member, EPOLL_CTL_ADD, EPOLLOUT);
}

static void greet(struct member *member)
{
    char out[256];
    if (member->attach)
        put(member, member->attach, strlen(member->attach));
    else
        put(member, out, dialect->hello(out, member->number));
    member->stage = GREETED;
    watch(member, EPOLL_CTL_MOD, EPOLLIN);
}

static void delivery(struct member *member, const char *unit, size_t length, uint64_t at_ns)
{
    member->received++;
    delivered++;
    if (rate || delivered % 8 == 0) {
        const char *mark = memchr(unit, MARK, length);
        uint64_t sent_ns = 0;
        if (!mark || mark + 17 > unit + length)
            die("member %d received something else: %.*s", member->number, (int)length, unit);
        for (int digit = 1; digit <= 16; digit++)
            sent_ns = sent_ns << 4 | (uint64_t)(mark[digit] - 'a');
        note_latency(at_ns > sent_ns ? at_ns - sent_ns : 0);
    }
}

static void handle(struct member *member, const char *unit, size_t length, uint64_t at_ns)
{
    char out[1024];
    enum meaning meaning = dialect->meaning(unit, length);
    if (meaning == DELIVERY) {
        delivery(member, unit, length, at_ns);
    } else if (meaning == REFUSAL) {
        die("member %d is refused: %.*s", member->number, (int)length, unit);
    } else if (meaning == PING && length < sizeof out) {
        put(member, out, dialect->pong(out, unit, length));
    } else if (meaning == WELCOME && member->stage == GREETED) {
        member->stage = dialect->join && join ? WELCOMED : INSIDE;
        if (member->stage == WELCOMED)
            put(member, out, dialect->join(out, member->number));
        else
            inside++;
        if (ways == 2) {
            struct member *second = member + count;
            out[dialect->attach(out, unit, length)] = 0;
            second->attach = strdup(out);
            begin(second);
        }
    } else if (meaning == JOINED && member->stage < INSIDE) {
        member->stage = INSIDE;
        inside++;
    }
}

static void take(struct member *member, uint64_t at_ns)
{
    static char data[2 * READ_BYTES];
    size_t length = member->rest_bytes, at = 0, size;
    if (length)
        memcpy(data, member->rest, length);
    ssize_t got = recv(member->fd, data + length, READ_BYTES, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        die("member %d lost its connection: %s", member->number, got ? strerror(errno) : "closed by the server");
    heard_ns = at_ns;
    length += (size_t)got;
    while (at < length && (size = dialect->unit(data + at, length - at))) {
        handle(member, data + at, size, at_ns);
        at += size;
    }
    member->rest_bytes = length - at;
    if (member->rest_bytes > READ_BYTES)
        die("member %d received a unit without end", member->number);
    if (member->rest_bytes) {
        member->rest = realloc(member->rest, member->rest_bytes);
        memcpy(member->rest, data + at, member->rest_bytes);
    }
}

/* One turn: what is there within `wait_ns` is read. How many sockets had something. */
static int turn(uint64_t wait_ns)
{
    struct epoll_event events[1024];
    struct timespec wait = {(time_t)(wait_ns / SECOND_NS), (long)(wait_ns % SECOND_NS)};
    int ready = epoll_pwait2(epoll_fd, events, 1024, &wait, NULL);
    for (int number = 0; number < ready; number++) {
        struct member *member = events[number].data.ptr;
        if (member->stage == CONNECTING)
            greet(member);
        else
            take(member, now_ns());
    }
    return ready;
}

/* Phases. */

static void come_in(void)
{
    long begun = 0;
    heard_ns = now_ns();
    while (inside < count * ways) {
        while (begun < count && begun - inside / ways < at_once)
            begin(&members[begun++]);
        turn(SECOND_NS);
        if (now_ns() - heard_ns > SILENCE_NS)
            die("%d of %ld connections are inside, and the server is silent", inside, count * ways);
    }
}

static void be_quiet(void)
{
    while (turn(SECOND_NS / 5) > 0)
        ;
}

/* How many connections receive each message. */
static uint64_t receivers(void) { return (uint64_t)(dialect->echoes ? count * ways : count - 1); }

/* `number` messages from one member, in one piece. */
static void say(struct member *member, long number, uint64_t at_ns)
{
    static char out[READ_BYTES];
    char text[TEXT_BYTES + 1];
    size_t length = 0;
    memset(text, 'x', TEXT_BYTES);
    text[TEXT_BYTES] = 0;
    text[0] = MARK;
    for (int digit = 16; digit; digit--, at_ns >>= 4)
        text[digit] = (char)('a' + (at_ns & 15));
    for (; number; number--, said++)
        length += dialect->say(out + length, ++member->said, text);
    for (long way = 0; way < ways; way++)
        put(member + way * count, out, length);
}

/* With more senders than members, members speak for several. */
static struct member *speaker(long turn) { return &members[turn % senders % count]; }

/* Say what the window allows, shared among the senders, beginning with the next in turn. */
static void fill_window(void)
{
    static long next;
    long allowed = window - (long)(said - delivered / receivers());
    for (long left = senders; left && allowed > 0; left--, next++) {
        long share = (allowed + left - 1) / left;
        say(speaker(next), share, now_ns());
        allowed -= share;
    }
}

/* Say what is due by now; when the next is. */
static uint64_t keep_rate(uint64_t start_ns)
{
    uint64_t due_ns, now = now_ns();
    while ((due_ns = start_ns + said * SECOND_NS / (uint64_t)rate) <= now)
        say(speaker((long)said), 1, due_ns);
    return due_ns - now;
}

static void talk(uint64_t until_ns, uint64_t start_ns)
{
    while (now_ns() < until_ns) {
        uint64_t wait_ns = SECOND_NS / 10;
        if (rate) {
            uint64_t due_ns = keep_rate(start_ns);
            wait_ns = due_ns < wait_ns ? due_ns : wait_ns;
        } else {
            fill_window();
        }
        turn(wait_ns);
        if (delivered < said * receivers() && now_ns() - heard_ns > SILENCE_NS)
            die("the server is silent after %llu deliveries", (unsigned long long)delivered);
    }
}

/* Everything that is still to come; how many connections have not received exactly what they should. */
static long drain(void)
{
    long wrong = 0;
    heard_ns = now_ns();
    while (delivered < said * receivers() && now_ns() - heard_ns < SILENCE_NS / 4)
        turn(SECOND_NS / 10);
    for (long number = 0; number < count * ways; number++)
        wrong += members[number].received != said - (dialect->echoes ? 0 : members[number].said);
    return wrong;
}

static void read_options(int argc, char **argv)
{
    static const struct {
        const char *name;
        long *value;
    } options[] = {{"members", &count},   {"ways", &ways},     {"at_once", &at_once}, {"join", &join},           {"senders", &senders},
                   {"window", &window},   {"rate", &rate},       {"warmup_ms", &warmup_ms}, {"measure_ms", &measure_ms},
                   {NULL, NULL}};
    const struct dialect *dialects[] = {&json, &irc, &mqtt, NULL};
    if (argc < 4)
        die("usage: generator DIALECT PORT SERVER_PID key=value …");
    for (int number = 0; dialects[number]; number++)
        if (!strcmp(dialects[number]->name, argv[1]))
            dialect = dialects[number];
    if (!dialect)
        die("there is no dialect %s", argv[1]);
    server.sin_port = htons((uint16_t)atoi(argv[2]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server_pid = atoi(argv[3]);
    for (int word = 4; word < argc; word++) {
        int number = 0;
        size_t name = strcspn(argv[word], "=");
        while (options[number].name && (strlen(options[number].name) != name || strncmp(options[number].name, argv[word], name)))
            number++;
        if (!options[number].name || !argv[word][name])
            die("there is no option %s", argv[word]);
        *options[number].value = atol(argv[word] + name + 1);
    }
    if (ways != 1 && (ways != 2 || !dialect->attach))
        die("a session has no %ld connections in %s", ways, dialect->name);
}

int main(int argc, char **argv)
{
    struct rlimit files;
    struct usage before, after;
    uint64_t start_ns, deliveries, messages;
    long rss_bytes, wrong = 0;
    read_options(argc, argv);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    members = calloc((size_t)(count * ways), sizeof *members);
    for (long number = 0; number < count * ways; number++)
        members[number].number = (int)number;
    epoll_fd = epoll_create1(0);
    rss_bytes = server_rss_bytes();
    before = usage();
    come_in();
    after = usage();
    be_quiet();
    printf("{\"registration_s\": %.6f, \"registration_cpu_s\": %.6f, \"session_bytes\": %.1f", (double)(after.at_ns - before.at_ns) / 1e9,
           (double)(after.server_ns - before.server_ns) / 1e9, (double)(server_rss_bytes() - rss_bytes) / (double)count);
    if (senders) {
        start_ns = now_ns();
        talk(start_ns + (uint64_t)warmup_ms * 1000000, start_ns);
        memset(latencies, 0, sizeof latencies);
        latency_count = 0;
        deliveries = delivered, messages = said;
        before = usage();
        talk(start_ns + (uint64_t)(warmup_ms + measure_ms) * 1000000, start_ns);
        after = usage();
        deliveries = (delivered - deliveries) / (uint64_t)ways, messages = said - messages;
        wrong = drain();
        printf(", \"messages\": %llu, \"deliveries\": %llu, \"measured_s\": %.6f, \"server_cpu_s\": %.6f, \"generator_cpu_s\": %.6f,"
               " \"server_waited_s\": %.6f, \"generator_waited_s\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f, \"lost\": %lld,"
               " \"wrong_members\": %ld",
               (unsigned long long)messages, (unsigned long long)deliveries, (double)(after.at_ns - before.at_ns) / 1e9,
               (double)(after.server_ns - before.server_ns) / 1e9, (double)(after.own_ns - before.own_ns) / 1e9,
               (double)(after.server_waited_ns - before.server_waited_ns) / 1e9,
               (double)(after.own_waited_ns - before.own_waited_ns) / 1e9, percentile_us(0.5), percentile_us(0.99),
               (long long)(said * receivers() - delivered), wrong);
    }
    printf(", \"rss_bytes\": %ld}\n", server_rss_bytes());
    return 0;
}
