/* The coalescing limit: the least that a chat server of one room can do, in our own lines.
 *
 * It checks nothing, parses nothing beyond a line's beginning and knows no session. At the end of each turn it sends
 * what is new, all in one piece, to everybody. `limit PORT`.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define RING_BYTES (64u << 20)
#define READ_BYTES (64u << 10)

struct member {
    int fd, waits;
    char nick[16];
    char *rest;
    size_t rest_bytes;
    uint64_t at; /* how much of the log it has been sent */
    struct member *next;
};

static char *ring; /* mapped twice in a row: a piece that wraps is contiguous all the same */
static uint64_t head, seq;
static struct member *members;
static int epoll_fd;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(struct member *member, int operation)
{
    struct epoll_event event = {.events = EPOLLIN | (member->waits ? EPOLLOUT : 0), .data.ptr = member};
    if (epoll_ctl(epoll_fd, operation, member->fd, &event) < 0)
        die("epoll_ctl");
}

static void send_news(struct member *member)
{
    while (member->at < head) {
        if (head - member->at > RING_BYTES) {
            fprintf(stderr, "limit: a reader is further behind than the log is long\n");
            exit(1);
        }
        ssize_t sent = send(member->fd, ring + member->at % RING_BYTES, head - member->at, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN) {
            member->at = head; /* it is gone; its read will say so */
            break;
        }
        if (sent > 0)
            member->at += (uint64_t)sent;
        if (member->at < head) {
            if (!member->waits) {
                member->waits = 1;
                watch(member, EPOLL_CTL_MOD);
            }
            return;
        }
    }
    if (member->waits) {
        member->waits = 0;
        watch(member, EPOLL_CTL_MOD);
    }
}

static void handle(struct member *member, const char *line, size_t length)
{
    static const char SAY[] = "{\"type\":\"say\",", HELLO[] = "{\"type\":\"hello\",\"nick\":\"";
    if (length > sizeof SAY && !memcmp(line, SAY, sizeof SAY - 1)) {
        char *out = ring + head % RING_BYTES;
        int size = sprintf(out, "{\"type\":\"said\",\"log\":\"lobby\",\"seq\":%llu,\"from\":\"%s\",",
                           (unsigned long long)++seq, member->nick);
        memcpy(out + size, line + sizeof SAY - 1, length - (sizeof SAY - 1));
        head += (uint64_t)size + length - (sizeof SAY - 1);
    } else if (length > sizeof HELLO && !memcmp(line, HELLO, sizeof HELLO - 1)) {
        char answer[] = "{\"type\":\"welcome\"}\n";
        sscanf(line + sizeof HELLO - 1, "%15[^\"]", member->nick);
        member->at = head;
        if (send(member->fd, answer, sizeof answer - 1, MSG_NOSIGNAL) < 0)
            die("send");
    }
}

static void drop(struct member *member)
{
    struct member **link = &members;
    while (*link != member)
        link = &(*link)->next;
    *link = member->next;
    close(member->fd);
    free(member->rest);
    free(member);
}

static void take(struct member *member)
{
    static char data[2 * READ_BYTES];
    size_t length = member->rest_bytes, at = 0;
    if (length)
        memcpy(data, member->rest, length);
    ssize_t got = recv(member->fd, data + length, READ_BYTES, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        drop(member);
        return;
    }
    length += (size_t)got;
    for (char *end; (end = memchr(data + at, '\n', length - at)); at = (size_t)(end - data) + 1)
        handle(member, data + at, (size_t)(end - data) + 1 - at);
    member->rest_bytes = length - at;
    if (member->rest_bytes > READ_BYTES) {
        drop(member);
    } else if (member->rest_bytes) {
        member->rest = realloc(member->rest, member->rest_bytes);
        memcpy(member->rest, data + at, member->rest_bytes);
    }
}

static void admit(int listener)
{
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct member *member = calloc(1, sizeof *member);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        member->fd = fd;
        member->at = head;
        member->next = members;
        members = member;
        watch(member, EPOLL_CTL_ADD);
    }
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event events[1024], event = {.events = EPOLLIN};
    struct rlimit files;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1, memory = memfd_create("ring", 0);
    if (argc != 2)
        return fprintf(stderr, "usage: limit PORT\n"), 2;
    address.sin_port = htons((uint16_t)atoi(argv[1]));
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if (ftruncate(memory, RING_BYTES) < 0)
        die("memory");
    ring = mmap(NULL, 2 * RING_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (int half = 0; half < 2; half++)
        if (mmap(ring + half * (size_t)RING_BYTES, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, memory, 0) ==
            MAP_FAILED)
            die("mmap");
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0)
        die("listen");
    epoll_fd = epoll_create1(0);
    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        uint64_t before = head;
        int count = epoll_wait(epoll_fd, events, 1024, -1);
        for (int number = 0; number < count; number++) {
            struct member *member = events[number].data.ptr;
            if (!member)
                admit(listener);
            else if (events[number].events & ~(uint32_t)EPOLLOUT)
                take(member);
            else
                send_news(member);
        }
        if (head > before)
            for (struct member *member = members; member; member = member->next)
                if (!member->waits)
                    send_news(member);
    }
}
