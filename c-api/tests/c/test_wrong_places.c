/* The interface against places where no cluster is: nobody, a name that is none, servers of another kind. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <sys/socket.h>

#include "cluster.h"

/* A web server: answers whatever comes, as such servers do. Ends when its listener is shut down. */
static void *serve_http(void *listener) {
  static const char answer[] =
      "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
  for (;;) {
    int peer = accept(*(int *)listener, NULL, NULL);
    if (peer < 0) {
      return NULL;
    }
    char request[512];
    if (read(peer, request, sizeof request) > 0) {
      ssize_t sent = send(peer, answer, sizeof answer - 1, MSG_NOSIGNAL);
      (void)sent;
    }
    close(peer);
  }
}

/* A broker that answers the first question with UNKNOWN_SERVER_ERROR, which is -1. Ends as the one above. */
static void *serve_unknown_errors(void *listener) {
  for (;;) {
    int peer = accept(*(int *)listener, NULL, NULL);
    if (peer < 0) {
      return NULL;
    }
    /* Length, kind and version, then the number that the answer repeats, code -1, and nothing else. */
    uint8_t request[512];
    if (read(peer, request, sizeof request) >= 12) {
      uint8_t answer[16] = {0, 0, 0, 12, 0, 0, 0, 0, 0xff, 0xff, 1};
      memcpy(answer + 4, request + 8, 4);
      ssize_t sent = send(peer, answer, sizeof answer, MSG_NOSIGNAL);
      (void)sent;
    }
    close(peer);
  }
}

/* A code is told as it is, below zero too. */
static void a_code_below_zero(void) {
  char bootstrap[32];
  int listener = local_socket(bootstrap);
  CHECK(listen(listener, 16) == 0);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, serve_unknown_errors, &listener) == 0);
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  ottla_client *client = NULL;
  ottla_error *error = NULL;
  options.bootstrap = bootstrap;
  options.connect_timeout_ms = 1000;
  CHECK(ottla_client_connect(&options, &client, &error) != OTTLA_STATUS_OK && client == NULL);
  CHECK(ottla_error_broker_code(error) == -1);
  ottla_error_free(error);
  shutdown(listener, SHUT_RDWR);
  pthread_join(thread, NULL);
  close(listener);
}

static void wrong_places(void) {
  char bootstrap[32];
  /* A port that is taken, but where nobody listens. */
  int silent = local_socket(bootstrap);
  expect_no_client(bootstrap, OTTLA_STATUS_CONNECT);
  close(silent);
  expect_no_client("name.invalid:9092", OTTLA_STATUS_RESOLVE);

  int listener = local_socket(bootstrap);
  CHECK(listen(listener, 16) == 0);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, serve_http, &listener) == 0);
  expect_no_client(bootstrap, OTTLA_STATUS_NOT_KAFKA);
  shutdown(listener, SHUT_RDWR);
  pthread_join(thread, NULL);
  close(listener);

  ottla_client *client = NULL;
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  options.bootstrap = "host:port";
  FAILS(OTTLA_STATUS_CONFIG, ottla_client_connect(&options, &client, E));
}

int main(void) {
  RUN(wrong_places());
  RUN(a_code_below_zero());
  return summary();
}
