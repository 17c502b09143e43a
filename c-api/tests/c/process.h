#ifndef PROCESS_H
#define PROCESS_H

/* Tests that need a process of their own. */
#include "cluster.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

static ottla_test_broker *start(void) {
  ottla_test_broker_options options = OTTLA_TEST_BROKER_OPTIONS_INIT;
  ottla_test_broker *broker = NULL;
  options.brokers = 1;
  OK(ottla_test_broker_new(&options, &broker, E));
  if (broker == NULL) {
    exit(summary());
  }
  OK(ottla_test_broker_create_topic(broker, "t", 3, 1, E));
  return broker;
}

static ottla_producer *produce(ottla_client *client, int64_t linger_ms) {
  ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
  ottla_producer *producer = NULL;
  options.compression = OTTLA_COMPRESSION_NONE;
  options.linger_ms = linger_ms;
  OK(ottla_producer_new(client, &options, &producer, E));
  return producer;
}

/* What became of a child: its exit status, or minus the signal that ended it. */
static int end_of(pid_t child) {
  int status = 0;
  if (waitpid(child, &status, 0) != child) {
    return 1000;
  }
  return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

/* Runs a test in a child, whose checks are its own. */
static int in_child(void (*test)(void)) {
  pid_t child = fork();
  if (child == 0) {
    passed = failed = tests_failed = 0;
    limit(running); /* The parent's alarm is not inherited. */
    test();
    fflush(NULL);
    _exit(failed == 0 ? 0 : 1);
  }
  return end_of(child);
}

/* All that a handle is for, once, with handles of its own. */
static void *there_and_back(void *nothing) {
  ottla_test_broker *broker = start();
  ottla_client *client = connect_to(ottla_test_broker_bootstrap(broker));
  ottla_producer *producer = produce(client, 0);
  ottla_record record = {0};
  size_t accepted = 0;
  OK(ottla_producer_send_batch(producer, "t", &record, 1, 1, &accepted, E));
  OK(ottla_producer_flush_wait(producer, PATIENCE_MS, E));
  ottla_consumer *consumer = consume(client, "t", 1);
  ottla_batch *batch = NULL;
  OK(ottla_consumer_next(consumer, PATIENCE_MS, &batch, E));
  CHECK(batch != NULL);
  ottla_batch_free(batch);
  ottla_consumer_free(consumer);
  ottla_producer_free(producer);
  ottla_client_free(client);
  ottla_test_broker_free(broker);
  return nothing;
}

#endif
