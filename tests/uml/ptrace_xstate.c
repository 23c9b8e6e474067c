/*
 * Lets user-mode Linux 6.1 run on a processor with AMX (for LD_PRELOAD).
 *
 * It keeps room for the extended registers of a processor with AVX-512 and hands that much back to PTRACE_SETREGSET,
 * which takes all of them or none. The rest (AMX's tiles, which nothing uses here) is therefore filled in from what the
 * traced process has.
 */
#define _GNU_SOURCE
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PEEKTEXT = 1, PEEKUSER = 3, GETREGSET = 0x4204, SETREGSET = 0x4205, NT_X86_XSTATE = 0x202 };

long ptrace(int request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    int pid = va_arg(arguments, int);
    long address = va_arg(arguments, long);
    void *data = va_arg(arguments, void *);
    va_end(arguments);

    if (request >= PEEKTEXT && request <= PEEKUSER) { /* the system call stores the word that the C function returns */
        long word;
        long result = syscall(SYS_ptrace, request, pid, address, &word);
        return result < 0 ? result : word;
    }
    if (request != SETREGSET || address != NT_X86_XSTATE)
        return syscall(SYS_ptrace, request, pid, address, data);

    static char registers[65536];
    struct iovec *given = data, whole = {registers, sizeof registers};
    if (syscall(SYS_ptrace, GETREGSET, pid, address, &whole) < 0)
        return -1;
    memcpy(registers, given->iov_base, given->iov_len < whole.iov_len ? given->iov_len : whole.iov_len);
    return syscall(SYS_ptrace, SETREGSET, pid, address, &whole);
}
