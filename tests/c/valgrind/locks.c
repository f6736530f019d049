/* SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * Tells helgrind which functions of the archive lock and unlock. Its locks are parking_lot's, made of
 * atomics and futexes, which helgrind does not see as locks; it would report everything behind them.
 * Loaded by LD_PRELOAD, so the programs and the archive are those that are tested without it. The
 * functions are there to be wrapped only if the archive is not optimised.
 *
 * In the names of wrappers Za stands for any characters and Zu for an underscore.
 */
#include <valgrind/helgrind.h>

#define MUTEX(function) I_WRAP_SONAME_FNNAME_ZZ(Za, ZaRawMutexZalockZuapiZaRawMutexZa##function##Za)
#define RWLOCK(function) \
    I_WRAP_SONAME_FNNAME_ZZ(Za, ZaRawRwLockZalockZuapiZaRawRwLockZa##function##Za)

/* A mutex is told as a reader-writer lock that only writers take: where it was in memory that has been
 * freed, a lock of the other kind may be now. */
void MUTEX(4lock)(void *lock)
{
    OrigFn function;

    VALGRIND_GET_ORIG_FN(function);
    CALL_FN_v_W(function, lock);
    ANNOTATE_RWLOCK_ACQUIRED(lock, 1);
}

unsigned char MUTEX(8tryZulock)(void *lock)
{
    OrigFn function;
    unsigned long taken;

    VALGRIND_GET_ORIG_FN(function);
    CALL_FN_W_W(taken, function, lock);
    if ((unsigned char)taken) { /* a Rust bool: the lowest byte */
        ANNOTATE_RWLOCK_ACQUIRED(lock, 1);
    }
    return (unsigned char)taken;
}

void MUTEX(6unlock)(void *lock)
{
    OrigFn function;

    VALGRIND_GET_ORIG_FN(function);
    ANNOTATE_RWLOCK_RELEASED(lock, 1);
    CALL_FN_v_W(function, lock);
}

void RWLOCK(14lockZuexclusive)(void *lock)
{
    OrigFn function;

    VALGRIND_GET_ORIG_FN(function);
    CALL_FN_v_W(function, lock);
    ANNOTATE_RWLOCK_ACQUIRED(lock, 1);
}

/* A reader takes an Arc out of what a writer put there and then writes behind the Arc's own lock. That
 * the writer came before those writes too is more than helgrind concludes from a reader's lock. */
void RWLOCK(16unlockZuexclusive)(void *lock)
{
    OrigFn function;

    VALGRIND_GET_ORIG_FN(function);
    ANNOTATE_HAPPENS_BEFORE(lock);
    ANNOTATE_RWLOCK_RELEASED(lock, 1);
    CALL_FN_v_W(function, lock);
}

void RWLOCK(11lockZushared)(void *lock)
{
    OrigFn function;

    VALGRIND_GET_ORIG_FN(function);
    CALL_FN_v_W(function, lock);
    ANNOTATE_RWLOCK_ACQUIRED(lock, 0);
    ANNOTATE_HAPPENS_AFTER(lock);
}

void RWLOCK(13unlockZushared)(void *lock)
{
    OrigFn function;

    VALGRIND_GET_ORIG_FN(function);
    ANNOTATE_RWLOCK_RELEASED(lock, 0);
    CALL_FN_v_W(function, lock);
}
