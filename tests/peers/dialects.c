#define _GNU_SOURCE
#include "dialect.h"

#include <stdio.h>
#include <string.h>

static size_t line(const char *data, size_t length)
{
    const char *end = memchr(data, '\n', length);
    return end ? (size_t)(end - data) + 1 : 0;
}

static int begins(const char *data, size_t length, const char *with)
{
    size_t size = strlen(with);
    return length >= size && memcmp(data, with, size) == 0;
}

static size_t no_pong(char *out, const char *unit, size_t length)
{
    (void)out, (void)unit, (void)length;
    return 0;
}

/* Our own lines, which the coalescing limit speaks too. */

static enum meaning json_meaning(const char *unit, size_t length)
{
    if (begins(unit, length, "{\"type\":\"said\""))
        return DELIVERY;
    if (begins(unit, length, "{\"type\":\"joined\""))
        return NOTHING;
    if (begins(unit, length, "{\"type\":\"welcome\""))
        return WELCOME;
    if (begins(unit, length, "{\"type\":\"attached\""))
        return JOINED;
    if (begins(unit, length, "{\"type\":\"refused\"") || begins(unit, length, "{\"type\":\"error\"") ||
        begins(unit, length, "{\"type\":\"gap\"") || begins(unit, length, "{\"type\":\"bye\""))
        return REFUSAL;
    return NOTHING;
}

static size_t json_hello(char *out, int number)
{
    return (size_t)sprintf(out, "{\"type\":\"hello\",\"nick\":\"m%05d\"}\n", number);
}

static size_t json_say(char *out, uint64_t number, const char *text)
{
    return (size_t)sprintf(out, "{\"type\":\"say\",\"text\":\"%s\",\"id\":%llu}\n", text, (unsigned long long)number);
}

static size_t json_attach(char *out, const char *welcome, size_t length)
{
    static const char KEY[] = "\"token\":\"";
    const char *token = memmem(welcome, length, KEY, sizeof KEY - 1);
    if (!token)
        return 0;
    token += sizeof KEY - 1;
    return (size_t)sprintf(out, "{\"type\":\"attach\",\"token\":\"%.*s\",\"cursors\":{}}\n", (int)strcspn(token, "\""), token);
}

const struct dialect json = {"json", 1, line, json_meaning, json_hello, NULL, json_say, no_pong, json_attach};

/* IRC: RFC 2812. */

static enum meaning irc_meaning(const char *unit, size_t length)
{
    const char *verb = unit, *end = unit + length;
    if (begins(unit, length, "PING"))
        return PING;
    if (begins(unit, length, "ERROR"))
        return REFUSAL;
    if (*unit != ':' || !(verb = memchr(unit, ' ', length)))
        return NOTHING;
    length = (size_t)(end - ++verb);
    if (begins(verb, length, "PRIVMSG "))
        return DELIVERY;
    if (begins(verb, length, "376 ") || begins(verb, length, "422 ")) /* after the message of the day, or without */
        return WELCOME;
    if (begins(verb, length, "366 "))
        return JOINED;
    return *verb == '4' || *verb == '5' ? REFUSAL : NOTHING;
}

static size_t irc_hello(char *out, int number)
{
    return (size_t)sprintf(out, "NICK m%05d\r\nUSER m%05d 0 * :member\r\n", number, number);
}

static size_t irc_join(char *out, int number)
{
    (void)number;
    return (size_t)sprintf(out, "JOIN #bench\r\n");
}

static size_t irc_say(char *out, uint64_t number, const char *text)
{
    (void)number;
    return (size_t)sprintf(out, "PRIVMSG #bench :%s\r\n", text);
}

static size_t irc_pong(char *out, const char *unit, size_t length)
{
    memcpy(out, unit, length);
    out[1] = 'O';
    return length;
}

const struct dialect irc = {"irc", 0, line, irc_meaning, irc_hello, irc_join, irc_say, irc_pong, NULL};

/* MQTT 3.1.1, quality of service 0: chapters 2 and 3 of the specification. */

static size_t packet(const char *data, size_t length)
{
    size_t size = 0, at = 1;
    for (int shift = 0; at < length && at < 5; shift += 7, at++) {
        size |= (size_t)(data[at] & 0x7f) << shift;
        if (!(data[at] & 0x80))
            return at + 1 + size <= length ? at + 1 + size : 0;
    }
    return 0;
}

static enum meaning mqtt_meaning(const char *unit, size_t length)
{
    switch ((unsigned char)unit[0] >> 4) {
    case 2:
        return length == 4 && unit[3] == 0 ? WELCOME : REFUSAL;
    case 3:
        return DELIVERY;
    case 9:
        return JOINED;
    default:
        return NOTHING;
    }
}

static size_t mqtt_hello(char *out, int number)
{
    memcpy(out, "\x10\x12\0\4MQTT\4\2\0\0\0\6", 14);
    return 14 + (size_t)sprintf(out + 14, "m%05d", number);
}

static size_t mqtt_join(char *out, int number)
{
    (void)number;
    memcpy(out, "\x82\x0a\0\1\0\5bench\0", 12);
    return 12;
}

static size_t mqtt_say(char *out, uint64_t number, const char *text)
{
    size_t size = strlen(text);
    (void)number;
    memcpy(out, "\x30?\0\5bench", 9);
    out[1] = (char)(7 + size); /* below 128: one byte */
    memcpy(out + 9, text, size);
    return 9 + size;
}

const struct dialect mqtt = {"mqtt", 1, packet, mqtt_meaning, mqtt_hello, mqtt_join, mqtt_say, no_pong, NULL};
