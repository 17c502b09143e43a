/* The few macros that the C tests need: a check that counts, and goes on. */
#ifndef OTTLA_TEST_CHECK_H
#define OTTLA_TEST_CHECK_H

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Checks, and the tests they belong to. */
static int passed, failed, tests_passed, tests_failed;

/* Seconds that a test may take: more than any wait in it, so that one that ends says what it waited for. */
enum { TEST_LIMIT_S = 120 };

/* The test that runs. */
static const char *running = "what is before the first test";

/* A test that does not end is named, and ends the program. */
static inline void hangs(int number) {
  (void)number;
  static const char begin[] = "HANGS ";
  ssize_t told = write(STDERR_FILENO, begin, sizeof begin - 1);
  told = write(STDERR_FILENO, running, strlen(running));
  told = write(STDERR_FILENO, "\n", 1);
  (void)told;
  _exit(124);
}

static inline void limit(const char *test) {
  running = test;
  signal(SIGALRM, hangs);
  alarm(TEST_LIMIT_S);
}

/* A test: passed if every check in it is. */
#define RUN(test)                                                              \
  do {                                                                         \
    int before_ = failed;                                                      \
    limit(#test);                                                              \
    test;                                                                      \
    limit("what is after " #test);                                             \
    if (failed == before_) {                                                   \
      tests_passed++;                                                          \
    } else {                                                                   \
      tests_failed++;                                                          \
      fprintf(stderr, "FAILED %s\n", #test);                                   \
    }                                                                          \
  } while (0)

#define CHECK(condition)                                                       \
  do {                                                                         \
    if (condition) {                                                           \
      passed++;                                                                \
    } else {                                                                   \
      failed++;                                                                \
      fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);  \
    }                                                                          \
  } while (0)

/* A call that must work; tells why if it does not. */
#define OK(call)                                                               \
  do {                                                                         \
    ottla_error *error_ = NULL;                                                \
    ottla_status status_ = (call);                                             \
    if (status_ == OTTLA_STATUS_OK && error_ == NULL) {                        \
      passed++;                                                                \
    } else {                                                                   \
      failed++;                                                                \
      fprintf(stderr, "%s:%d: %s: %s: %s\n", __FILE__, __LINE__, #call,        \
              ottla_error_name(error_), ottla_error_message(error_));          \
      ottla_error_free(error_);                                                \
    }                                                                          \
  } while (0)

/* A call that must fail with this status and an error object that says the same. */
#define FAILS(expected, call)                                                  \
  do {                                                                         \
    ottla_error *error_ = NULL;                                                \
    ottla_status status_ = (call);                                             \
    if (status_ == (expected) && ottla_error_status(error_) == (expected) &&   \
        ottla_error_message(error_)[0] != 0) {                                 \
      passed++;                                                                \
    } else {                                                                   \
      failed++;                                                                \
      fprintf(stderr, "%s:%d: %s: status %s instead of %s (%s)\n", __FILE__,   \
              __LINE__, #call, ottla_status_name(status_),                     \
              ottla_status_name(expected), ottla_error_message(error_));       \
    }                                                                          \
    ottla_error_free(error_);                                                  \
  } while (0)

/* The error out-parameter of a call inside OK or FAILS. */
#define E (&error_)

static inline int same(const uint8_t *bytes, size_t len, const char *text) {
  return bytes != NULL && len == strlen(text) && memcmp(bytes, text, len) == 0;
}

static inline int summary(void) {
  /* A check between the tests counts as one. */
  if (failed > 0 && tests_failed == 0) {
    tests_failed = 1;
  }
  printf("%d checks\n%d passed, %d failed\n", passed + failed, tests_passed, tests_failed);
  return failed == 0 ? 0 : 1;
}

#endif
