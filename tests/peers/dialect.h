/* How to say the same things to each server: the generator knows nothing else about them. */
#ifndef DIALECT_H
#define DIALECT_H

#include <stddef.h>
#include <stdint.h>

/* What one unit (a line or a packet) from the server means to the generator. */
enum meaning { NOTHING, WELCOME, JOINED, DELIVERY, PING, REFUSAL };

/* Starts the text of each message; it occurs nowhere else in a delivery. */
#define MARK '|'
#define TEXT_BYTES 100

struct dialect {
    const char *name;
    /* Whether a sender gets its own messages too. */
    int echoes;
    /* Bytes of the first complete unit in `data`, 0 if it is not complete. */
    size_t (*unit)(const char *data, size_t length);
    enum meaning (*meaning)(const char *unit, size_t length);
    /* Each of these writes what a member sends and returns its length; `number` is the member's or the message's. */
    size_t (*hello)(char *out, int number);
    size_t (*join)(char *out, int number); /* NULL: the welcome brings everybody into the room */
    size_t (*say)(char *out, uint64_t number, const char *text);
    size_t (*pong)(char *out, const char *unit, size_t length);
    size_t (*attach)(char *out, const char *welcome, size_t length); /* a second connection; NULL: there is no such thing */
};

extern const struct dialect json, irc, mqtt;

#endif
