/* What one caller submits one after the other stands in the log in that order, whichever threads it
 * submits on. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdlib.h>

#include "cluster.h"

enum { THREADS = 4, SUBMISSIONS = 4000, EACH = 7 };

/* One caller on many threads: a turn goes round, and each does the next submission on its own. */
typedef struct {
  ottla_producer *producer;
  const char *topic;
  int32_t partition; /* -1: not named */
  bool packed;
  pthread_mutex_t lock;
  pthread_cond_t turn;
  uint32_t next;
} caller;

typedef struct {
  caller *caller;
  uint32_t number;
} hand;

static void submit(caller *c, uint32_t submission) {
  uint32_t values[EACH];
  ottla_record records[EACH];
  memset(records, 0, sizeof records);
  uint8_t packed[EACH * 28], *at = packed;
  for (uint32_t i = 0; i < EACH; i++) {
    values[i] = submission * EACH + i;
    records[i].key = (const uint8_t *)"key";
    records[i].key_len = 3;
    records[i].value = (const uint8_t *)&values[i];
    records[i].value_len = sizeof values[i];
    if (c->partition >= 0) {
      records[i].partition = c->partition;
      records[i].flags = OTTLA_RECORD_PARTITION;
    }
    /* partition, no headers, stamped now, null key, 4 bytes */
    const int32_t head[6] = {c->partition, 0, -1, -1, -1, sizeof values[i]};
    memcpy(at, head, sizeof head);
    memcpy(at + sizeof head, &values[i], sizeof values[i]);
    at += sizeof head + sizeof values[i];
  }
  size_t accepted = 0;
  if (c->packed) {
    OK(ottla_producer_send_packed(c->producer, c->topic, packed, sizeof packed, EACH, submission,
                                  &accepted, E));
  } else {
    OK(ottla_producer_send_batch(c->producer, c->topic, records, EACH, submission, &accepted, E));
  }
  CHECK(accepted == EACH);
}

static void *take_turns(void *argument) {
  hand *h = argument;
  caller *c = h->caller;
  pthread_mutex_lock(&c->lock);
  for (;;) {
    while (c->next < SUBMISSIONS && c->next % THREADS != h->number) {
      pthread_cond_wait(&c->turn, &c->lock);
    }
    if (c->next >= SUBMISSIONS) {
      break;
    }
    submit(c, c->next);
    c->next++;
    pthread_cond_broadcast(&c->turn);
  }
  pthread_mutex_unlock(&c->lock);
  return NULL;
}

static void in_order(const char *bootstrap, const char *topic, int32_t partition,
                     int32_t partitioner, bool packed) {
  ottla_client *client = connect_to(bootstrap);
  ottla_producer_options options = OTTLA_PRODUCER_OPTIONS_INIT;
  options.batch_size = 4096; /* many batches */
  options.partitioner = partitioner;
  caller c = {.topic = topic,
              .partition = partition,
              .packed = packed,
              .lock = PTHREAD_MUTEX_INITIALIZER,
              .turn = PTHREAD_COND_INITIALIZER};
  OK(ottla_producer_new(client, &options, &c.producer, E));
  hand hands[THREADS];
  pthread_t threads[THREADS];
  for (uint32_t i = 0; i < THREADS; i++) {
    hands[i] = (hand){&c, i};
    CHECK(pthread_create(&threads[i], NULL, take_turns, &hands[i]) == 0);
  }
  for (int i = 0; i < THREADS; i++) {
    pthread_join(threads[i], NULL);
  }
  OK(ottla_producer_close_wait(c.producer, PATIENCE_MS, E));

  ottla_consumer *consumer = consume(client, topic, 1);
  uint32_t next = 0, wrong = 0;
  for (size_t read = 0; read < SUBMISSIONS * EACH;) {
    ottla_batch *batch = NULL;
    OK(ottla_consumer_next(consumer, PATIENCE_MS, &batch, E));
    if (batch == NULL) {
      CHECK(batch != NULL);
      break;
    }
    for (size_t i = 0; i < ottla_batch_len(batch); i++, read++) {
      ottla_record_view view;
      uint32_t value = 0;
      OK(ottla_batch_record(batch, i, &view, E));
      memcpy(&value, view.value, sizeof value);
      wrong += value != next;
      next = value + 1;
    }
    ottla_batch_free(batch);
  }
  if (wrong > 0) {
    fprintf(stderr, "%s: %u of %d records out of order\n", topic, wrong, SUBMISSIONS * EACH);
  }
  CHECK(wrong == 0);
  ottla_consumer_free(consumer);
  ottla_producer_free(c.producer);
  ottla_client_free(client);
}

int main(void) {
  ottla_test_broker *broker = NULL;
  OK(ottla_test_broker_new(NULL, &broker, E));
  const char *bootstrap = ottla_test_broker_bootstrap(broker);
  OK(ottla_test_broker_create_topic(broker, "one", 1, 1, E));
  OK(ottla_test_broker_create_topic(broker, "packed", 1, 1, E));
  OK(ottla_test_broker_create_topic(broker, "named", 3, 1, E));
  OK(ottla_test_broker_create_topic(broker, "hashed", 3, 1, E));
  RUN(in_order(bootstrap, "one", -1, OTTLA_PARTITIONER_SPREAD, false));
  RUN(in_order(bootstrap, "packed", -1, OTTLA_PARTITIONER_SPREAD, true));
  RUN(in_order(bootstrap, "named", 2, OTTLA_PARTITIONER_SPREAD, false));
  RUN(in_order(bootstrap, "hashed", -1, OTTLA_PARTITIONER_KEY_HASH, false));
  ottla_test_broker_free(broker);
  return summary();
}
