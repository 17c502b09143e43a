/* Members of consumer groups: what counts as done, what is committed, what the group says, and how they leave. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stddef.h>

#include "cluster.h"

static ottla_test_broker *broker;

static void topic(const char *name, int32_t partitions) {
  OK(ottla_test_broker_create_topic(broker, name, partitions, 2, E));
}

/* So many records into a partition, each in a batch of its own. Or, into one that holds nothing yet, all but the first in one:
 * as long as no batch of a partition was ever acknowledged, no second one is sent. */
static void write_to(ottla_client *client, const char *name, int32_t partition, size_t records, bool one_batch) {
  ottla_producer *producer = NULL;
  ottla_record list[16] = {{0}};
  size_t accepted = 0;
  OK(ottla_producer_new(client, NULL, &producer, E));
  for (size_t i = 0; i < records; i++) {
    list[i].partition = partition;
    list[i].flags = OTTLA_RECORD_PARTITION;
  }
  if (one_batch) {
    int64_t end = 0;
    OK(ottla_test_broker_set_replica_delay(broker, -1, E));
    OK(ottla_producer_send_batch(producer, name, list, 1, 1, &accepted, E));
    while (accepted == 1 && end < 1) {
      OK(ottla_test_broker_log_end(broker, name, partition, &end, E));
      poll(NULL, 0, 1);
    }
    OK(ottla_producer_send_batch(producer, name, list, records - 1, 1, &accepted, E));
    CHECK(end == 1 && accepted == records - 1);
    OK(ottla_test_broker_set_replica_delay(broker, 0, E));
    OK(ottla_producer_flush_wait(producer, PATIENCE_MS, E));
  }
  for (size_t sent = 0; sent < records && !one_batch; sent++) {
    OK(ottla_producer_send_batch(producer, name, list, 1, 1, &accepted, E));
    CHECK(accepted == 1);
    OK(ottla_producer_flush_wait(producer, PATIENCE_MS, E));
  }
  ottla_producer_free(producer);
}

static ottla_consumer_options of_group(const char *group, const char *const *name, int32_t commit) {
  ottla_consumer_options options = OTTLA_CONSUMER_OPTIONS_INIT;
  options.topics = name;
  options.topic_count = 1;
  options.group = group;
  options.commit = commit;
  return options;
}

static ottla_consumer *join(ottla_client *client, const char *group, const char *name, int32_t commit) {
  ottla_consumer_options options = of_group(group, &name, commit);
  ottla_consumer *consumer = NULL;
  OK(ottla_consumer_new(client, &options, &consumer, E));
  return consumer;
}

static int64_t committed(const char *group, const char *name, int32_t partition) {
  int64_t offset = -2;
  OK(ottla_test_broker_committed(broker, group, name, partition, &offset, E));
  return offset;
}

/* Whether a group has so many members, and is where it is to be. */
static bool is_in(const char *group, int32_t wanted, size_t of) {
  int32_t state = -1;
  size_t members = 99;
  OK(ottla_test_broker_group(broker, group, &state, &members, E));
  return state == wanted && members == of;
}

/* The limit of the test would tell. */
static void comes_to(const char *group, int32_t state, size_t members) {
  while (!is_in(group, state, members)) {
    poll(NULL, 0, 5);
  }
}

static ottla_batch *next_batch(ottla_consumer *consumer) {
  ottla_batch *batch = NULL;
  OK(ottla_consumer_next(consumer, PATIENCE_MS, &batch, E));
  CHECK(batch != NULL);
  return batch;
}

static int64_t first_of(const ottla_batch *batch) {
  ottla_record_view view = {.offset = -9};
  OK(ottla_batch_record(batch, 0, &view, E));
  return view.offset;
}

/* A batch that was not asked beyond is read again by who comes next, and nothing else. */
static void the_batch_in_hand_is_not_done(ottla_client *client) {
  ottla_batch *batch = NULL;
  topic("marks", 2);
  write_to(client, "marks", 0, 3, false);
  write_to(client, "marks", 1, 3, false);
  ottla_consumer *consumer = join(client, "marks", "marks", 0);
  for (int i = 0; i < 6; i++) {
    ottla_batch_free(next_batch(consumer));
  }
  OK(ottla_consumer_leave_wait(consumer, PATIENCE_MS, E));
  CHECK(is_in("marks", OTTLA_TEST_GROUP_EMPTY, 0));
  CHECK(committed("marks", "marks", 0) + committed("marks", "marks", 1) == 5);
  FAILS(OTTLA_STATUS_CLOSED, ottla_consumer_next(consumer, 0, &batch, E));
  ottla_consumer_free(consumer);
  /* Its successor is asked once more than it has. */
  consumer = join(client, "marks", "marks", 0);
  ottla_batch_free(next_batch(consumer));
  OK(ottla_consumer_next(consumer, 100, &batch, E));
  CHECK(batch == NULL);
  OK(ottla_consumer_commit_wait(consumer, PATIENCE_MS, E));
  CHECK(committed("marks", "marks", 0) == 3 && committed("marks", "marks", 1) == 3);
  /* Freed, it leaves in the background. */
  ottla_consumer_free(consumer);
  comes_to("marks", OTTLA_TEST_GROUP_EMPTY, 0);
}

/* Record by record, what is committed is as exact; also through the memory that is shared. */
static void records_are_reached(ottla_client *client) {
  topic("reached", 1);
  write_to(client, "reached", 0, 6, true);
  ottla_consumer *consumer = join(client, "reached", "reached", OTTLA_COMMIT_MARKS);
  ottla_batch_free(next_batch(consumer));
  ottla_batch *batch = next_batch(consumer);
  CHECK(first_of(batch) == 1 && ottla_batch_len(batch) == 5);
  ottla_batch_reached(batch, 3);
  OK(ottla_consumer_commit_wait(consumer, PATIENCE_MS, E));
  CHECK(committed("reached", "reached", 0) == 3);
  ottla_wanted *wanted = NULL;
  ottla_wanted_words shared = {0};
  OK(ottla_batch_wanted(batch, &wanted, E));
  ottla_batch_free(batch);
  OK(ottla_wanted_share(wanted, &shared, E));
  CHECK(shared.reached != NULL && shared.handed_on != NULL && *shared.standing == 0);
  __atomic_store_n(shared.reached, 4, __ATOMIC_RELEASE);
  OK(ottla_consumer_leave_wait(consumer, PATIENCE_MS, E));
  CHECK(committed("reached", "reached", 0) == 4);
  ottla_consumer_free(consumer);
  ottla_wanted_free(wanted);
  consumer = join(client, "reached", "reached", OTTLA_COMMIT_MARKS);
  batch = next_batch(consumer);
  CHECK(first_of(batch) == 4);
  ottla_batch_free(batch);
  ottla_consumer_free(consumer);
}

static void acked_in_any_order(ottla_client *client) {
  ottla_batch *batches[4];
  ottla_wanted *wanted = NULL;
  topic("acked", 1);
  write_to(client, "acked", 0, 4, true);
  write_to(client, "acked", 0, 2, false);
  ottla_consumer *consumer = join(client, "acked", "acked", OTTLA_COMMIT_ACKED);
  for (int i = 0; i < 4; i++) {
    batches[i] = next_batch(consumer);
  }
  OK(ottla_batch_ack(batches[0], E));
  OK(ottla_batch_ack(batches[2], E));
  OK(ottla_consumer_commit_wait(consumer, PATIENCE_MS, E));
  CHECK(committed("acked", "acked", 0) == 1);
  OK(ottla_batch_ack_before(batches[1], 3, E));
  OK(ottla_batch_ack_before(batches[1], 2, E)); /* Twice does nothing. */
  OK(ottla_consumer_commit_wait(consumer, PATIENCE_MS, E));
  CHECK(committed("acked", "acked", 0) == 3);
  OK(ottla_batch_wanted(batches[1], &wanted, E));
  for (int i = 0; i < 4; i++) {
    ottla_batch_free(batches[i]);
  }
  OK(ottla_wanted_ack_before(wanted, INT64_MAX, E));
  OK(ottla_consumer_commit_wait(consumer, PATIENCE_MS, E));
  CHECK(committed("acked", "acked", 0) == 5);
  OK(ottla_consumer_leave_wait(consumer, PATIENCE_MS, E));
  OK(ottla_wanted_ack_before(wanted, INT64_MAX, E)); /* Nor does it when it is over. */
  ottla_wanted_free(wanted);
  ottla_consumer_free(consumer);
}

/* The next completion but those that say that a consumer is ready. */
static ottla_completion operation(ottla_client *client) {
  ottla_completion done;
  do {
    done = next_completion(client);
  } while (done.kind == OTTLA_COMPLETION_CONSUMER_READY);
  return done;
}

static void committed_by_hand(const char *bootstrap) {
  ottla_client *client = connect_to(bootstrap);
  ottla_partition_offset to = {.topic = "hand", .offset = 1, .partition = 0};
  topic("hand", 1);
  ottla_client *writer = connect_to(bootstrap);
  write_to(writer, "hand", 0, 3, false);
  ottla_client_free(writer);
  const char *name = "hand";
  ottla_consumer_options options = of_group("hand", &name, OTTLA_COMMIT_MANUAL);
  ottla_consumer *consumer = NULL;
  options.commit_interval_ms = 10;
  OK(ottla_consumer_new(client, &options, &consumer, E));
  for (int i = 0; i < 3; i++) {
    ottla_batch_free(next_batch(consumer));
  }
  OK(ottla_consumer_commit(consumer, 7, E));
  ottla_completion done = operation(client);
  CHECK(done.kind == OTTLA_COMPLETION_COMMITTED && done.tag == 7 && done.error == NULL);
  CHECK(committed("hand", "hand", 0) == 2);
  OK(ottla_consumer_commit_to(consumer, &to, 1, 8, E));
  done = operation(client);
  CHECK(done.kind == OTTLA_COMPLETION_COMMITTED && done.tag == 8 && done.error == NULL);
  CHECK(committed("hand", "hand", 0) == 1);
  to.offset = 0;
  OK(ottla_consumer_commit_to_wait(consumer, &to, 1, PATIENCE_MS, E));
  CHECK(committed("hand", "hand", 0) == 0);
  to.offset = -1;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_commit_to_wait(consumer, &to, 1, PATIENCE_MS, E));
  /* By hand only: not by the end either. */
  OK(ottla_consumer_leave_wait(consumer, PATIENCE_MS, E));
  CHECK(committed("hand", "hand", 0) == 0);
  FAILS(OTTLA_STATUS_CLOSED, ottla_consumer_commit_wait(consumer, PATIENCE_MS, E));
  OK(ottla_consumer_commit(consumer, 9, E));
  done = operation(client);
  CHECK(done.tag == 9 && ottla_error_status(done.error) == OTTLA_STATUS_CLOSED);
  ottla_error_free(done.error);
  ottla_consumer_free(consumer);

  /* By hand, and what was acknowledged. */
  consumer = join(client, "hand", "hand", OTTLA_COMMIT_MANUAL_ACKED);
  ottla_batch *first = next_batch(consumer);
  ottla_batch_free(next_batch(consumer));
  ottla_batch_free(next_batch(consumer));
  OK(ottla_batch_ack(first, E));
  ottla_batch_free(first);
  OK(ottla_consumer_commit_wait(consumer, PATIENCE_MS, E));
  CHECK(committed("hand", "hand", 0) == 1);
  ottla_consumer_free(consumer);
  ottla_client_free(client);
}

/* Asks for a little while; what the group says of how many partitions is written down by its kind. */
static void listens(ottla_consumer *consumer, int told[4], size_t partitions[4]) {
  ottla_batch *batch = NULL;
  ottla_event *event = NULL;
  OK(ottla_consumer_next_event(consumer, 5, &batch, &event, E));
  CHECK(batch == NULL || event == NULL);
  ottla_batch_free(batch);
  int32_t kind = ottla_event_kind_of(event);
  if (kind > 0 && kind < 4) {
    told[kind]++;
    partitions[kind] += ottla_partitions_len(ottla_event_partitions(event));
    CHECK((ottla_event_time_left_ms(event) >= 0) == (kind == OTTLA_EVENT_GIVING_UP));
  }
  ottla_event_free(event);
}

static void events_come_between_batches(ottla_client *client) {
  const char *name = "events";
  ottla_consumer *both[2] = {NULL};
  int told[2][4] = {{0}};
  size_t partitions[2][4] = {{0}};
  ottla_partition at = {0};
  topic(name, 2);
  ottla_consumer_options options = of_group("events", &name, 0);
  options.assignors = "cooperative-sticky";
  OK(ottla_consumer_new(client, &options, &both[0], E));
  ottla_batch *batch = NULL;
  ottla_event *event = NULL;
  OK(ottla_consumer_try_next_event(both[0], &batch, &event, E));
  CHECK(batch == NULL && event == NULL);
  OK(ottla_consumer_next_event(both[0], PATIENCE_MS, &batch, &event, E));
  CHECK(batch == NULL && ottla_event_kind_of(event) == OTTLA_EVENT_ASSIGNED);
  CHECK(ottla_partitions_len(ottla_event_partitions(event)) == 2);
  OK(ottla_partitions_at(ottla_event_partitions(event), 1, &at, E));
  CHECK(strcmp(at.topic, "events") == 0 && at.partition == 1);
  ottla_event_free(event);
  OK(ottla_consumer_new(client, &options, &both[1], E));
  while (partitions[1][OTTLA_EVENT_ASSIGNED] == 0) {
    listens(both[0], told[0], partitions[0]);
    listens(both[1], told[1], partitions[1]);
  }
  CHECK(partitions[1][OTTLA_EVENT_ASSIGNED] == 1);
  CHECK(told[0][OTTLA_EVENT_GIVING_UP] == 1 && partitions[0][OTTLA_EVENT_GIVING_UP] == 1);
  CHECK(told[0][OTTLA_EVENT_LOST] == 0 && told[1][OTTLA_EVENT_LOST] == 0);
  ottla_consumer_free(both[0]);
  ottla_consumer_free(both[1]);
}

static void *read_one(void *consumer) {
  ottla_batch *batch = NULL;
  if (ottla_consumer_next(consumer, PATIENCE_MS, &batch, NULL) != OTTLA_STATUS_OK || batch == NULL) {
    return NULL;
  }
  return batch;
}

/* Two members have a partition each, and what one leaves the other takes over. */
static void two_share(ottla_client *client) {
  topic("share", 2);
  ottla_consumer *both[2] = {join(client, "share", "share", 0), join(client, "share", "share", 0)};
  pthread_t threads[2];
  void *got[2] = {NULL};
  ottla_batch_info info[2] = {{0}};
  for (int i = 0; i < 2; i++) {
    CHECK(pthread_create(&threads[i], NULL, read_one, both[i]) == 0);
  }
  comes_to("share", OTTLA_TEST_GROUP_STABLE, 2);
  write_to(client, "share", 0, 1, false);
  write_to(client, "share", 1, 1, false);
  for (int i = 0; i < 2; i++) {
    CHECK(pthread_join(threads[i], &got[i]) == 0 && got[i] != NULL);
    OK(ottla_batch_describe(got[i], &info[i], E));
    ottla_batch_free(got[i]);
  }
  CHECK(info[0].partition + info[1].partition == 1);
  OK(ottla_consumer_leave_wait(both[0], PATIENCE_MS, E));
  /* The one that stays goes on in both: with what the other had in hand. */
  ottla_batch *batch = next_batch(both[1]);
  OK(ottla_batch_describe(batch, &info[1], E));
  CHECK(info[1].partition == info[0].partition && first_of(batch) == 0);
  ottla_batch_free(batch);
  ottla_consumer_free(both[0]);
  ottla_consumer_free(both[1]);
}

/* Closed as an event loop does it, and twice. */
static void leaving_is_told(const char *bootstrap) {
  ottla_client *client = connect_to(bootstrap);
  topic("leave", 1);
  ottla_consumer *consumer = join(client, "leave", "leave", 0);
  ottla_batch *batch = NULL;
  OK(ottla_consumer_next(consumer, 0, &batch, E));
  comes_to("leave", OTTLA_TEST_GROUP_STABLE, 1);
  OK(ottla_consumer_leave(consumer, 3, E));
  OK(ottla_consumer_leave(consumer, 4, E));
  OK(ottla_consumer_close(consumer, E));
  ottla_consumer_free(consumer);
  uint64_t tags = 0;
  for (int i = 0; i < 2; i++) {
    ottla_completion done = operation(client);
    CHECK(done.kind == OTTLA_COMPLETION_CLOSED && done.error == NULL);
    CHECK(is_in("leave", OTTLA_TEST_GROUP_EMPTY, 0));
    tags += done.tag;
  }
  CHECK(tags == 7);
  /* Without a group there is nothing to wait for. */
  consumer = consume(client, "leave", 5);
  OK(ottla_consumer_leave(consumer, 6, E));
  CHECK(operation(client).tag == 6);
  OK(ottla_consumer_leave_wait(consumer, 0, E));
  ottla_consumer_free(consumer);
  /* With its client it leaves, too. */
  consumer = join(client, "leave", "leave", 0);
  OK(ottla_consumer_next(consumer, 0, &batch, E));
  comes_to("leave", OTTLA_TEST_GROUP_STABLE, 1);
  ottla_client_free(client);
  comes_to("leave", OTTLA_TEST_GROUP_EMPTY, 0);
  ottla_consumer_free(consumer);
}

static void other_topics(ottla_client *client) {
  const char *names[1] = {"after"};
  topic("before", 1);
  topic("after", 1);
  write_to(client, "before", 0, 1, false);
  write_to(client, "after", 0, 1, false);
  OK(ottla_test_broker_set_committed(broker, "other", "before", 0, 1, E));
  ottla_consumer *consumer = join(client, "other", "before", 0);
  ottla_batch *batch = NULL;
  ottla_batch_info info = {0};
  OK(ottla_consumer_next(consumer, 100, &batch, E));
  CHECK(batch == NULL); /* The group has that already. */
  OK(ottla_consumer_subscribe(consumer, names, 1, E));
  batch = next_batch(consumer);
  OK(ottla_batch_describe(batch, &info, E));
  CHECK(strcmp(info.topic, "after") == 0);
  ottla_batch_free(batch);
  /* By a pattern of whole names. */
  const char *patterns[2] = {"^aft", "^pattern-[ab]"};
  topic("pattern-a", 1);
  topic("pattern-abc", 1);
  write_to(client, "pattern-abc", 0, 1, false);
  write_to(client, "pattern-a", 0, 1, false);
  OK(ottla_consumer_subscribe(consumer, patterns, 2, E));
  batch = next_batch(consumer);
  OK(ottla_batch_describe(batch, &info, E));
  CHECK(strcmp(info.topic, "pattern-a") == 0);
  ottla_batch_free(batch);
  patterns[0] = "^(";
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_subscribe(consumer, patterns, 1, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_subscribe(consumer, NULL, 0, E));
  ottla_consumer_free(consumer);
}

/* Each setting arrives under its own name and in its own unit. */
static void settings_of_a_member(ottla_client *client) {
  static const struct {
    const char *name;
    size_t at;
    int64_t taken[2], refused[2];
  } ranges[] = {
      {"session_timeout is ", offsetof(ottla_consumer_options, session_timeout_ms), {1000, 86400000}, {999, 86400001}},
      {"max_poll_interval is ", offsetof(ottla_consumer_options, max_poll_interval_ms), {1000, 86400000}, {999, 86400001}},
      {"commit_interval is ", offsetof(ottla_consumer_options, commit_interval_ms), {10, 86400000}, {9, 86400001}},
  };
  const char *name = "marks";
  ottla_consumer *consumer = NULL;
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    for (int k = 0; k < 2; k++) {
      ottla_consumer_options options = of_group("settings", &name, 0);
      ottla_error *error = NULL;
      memcpy((char *)&options + ranges[i].at, &ranges[i].taken[k], 8);
      OK(ottla_consumer_new(client, &options, &consumer, E));
      ottla_consumer_free(consumer);
      memcpy((char *)&options + ranges[i].at, &ranges[i].refused[k], 8);
      CHECK(ottla_consumer_new(client, &options, &consumer, &error) == OTTLA_STATUS_CONFIG);
      CHECK(strncmp(ottla_error_message(error), ranges[i].name, strlen(ranges[i].name)) == 0);
      ottla_error_free(error);
    }
  }
  ottla_consumer_options options = of_group("settings", &name, 0);
  for (options.commit = 5; options.commit > -2; options.commit -= 6) {
    FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_new(client, &options, &consumer, E));
  }
  options.commit = 0;
  for (options.group_protocol = 3; options.group_protocol > -2; options.group_protocol -= 4) {
    FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_new(client, &options, &consumer, E));
  }
  options.group_protocol = OTTLA_GROUP_PROTOCOL_NEXT;
  options.remote_assignor = "uniform";
  OK(ottla_consumer_new(client, &options, &consumer, E));
  ottla_consumer_free(consumer);
  options.remote_assignor = "";
  FAILS(OTTLA_STATUS_CONFIG, ottla_consumer_new(client, &options, &consumer, E));
  options.remote_assignor = NULL;
  options.session_timeout_ms = 9000; /* Of the classic protocol. */
  FAILS(OTTLA_STATUS_CONFIG, ottla_consumer_new(client, &options, &consumer, E));
  options.session_timeout_ms = 0;
  options.group_protocol = OTTLA_GROUP_PROTOCOL_AUTO;
  options.assignors = "range, roundrobin,sticky,cooperative-sticky";
  OK(ottla_consumer_new(client, &options, &consumer, E));
  ottla_consumer_free(consumer);
  options.assignors = "range,uniform";
  FAILS(OTTLA_STATUS_CONFIG, ottla_consumer_new(client, &options, &consumer, E));
  options.assignors = "";
  FAILS(OTTLA_STATUS_CONFIG, ottla_consumer_new(client, &options, &consumer, E));
  options.assignors = NULL;
  options.instance_id = "";
  FAILS(OTTLA_STATUS_CONFIG, ottla_consumer_new(client, &options, &consumer, E));
  options.instance_id = "one";
  OK(ottla_consumer_new(client, &options, &consumer, E));
  ottla_consumer_free(consumer);
  options.group = NULL; /* A member of what? */
  FAILS(OTTLA_STATUS_CONFIG, ottla_consumer_new(client, &options, &consumer, E));
  /* The group decides what is read. */
  ottla_assignment at = {.topic = "marks"};
  options.group = "settings";
  options.topics = NULL;
  options.topic_count = 0;
  options.assignments = &at;
  options.assignment_count = 1;
  FAILS(OTTLA_STATUS_CONFIG, ottla_consumer_new(client, &options, &consumer, E));
  /* A program that knows no groups. */
  options = of_group("settings", &name, 99);
  options.size = offsetof(ottla_consumer_options, group);
  OK(ottla_consumer_new(client, &options, &consumer, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_commit_wait(consumer, PATIENCE_MS, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_consumer_subscribe(consumer, &name, 1, E));
  ottla_consumer_free(consumer);
}

static void nothing_is_refused(void) {
  const ottla_status invalid = OTTLA_STATUS_INVALID_ARGUMENT;
  const char *name = "t";
  ottla_client *client = NULL;
  ottla_batch *batch = NULL;
  ottla_event *event = NULL;
  ottla_partition_offset to = {0};
  ottla_wanted_words shared = {0};
  int64_t offset = 0;
  int32_t state = 0;
  size_t members = 0;
  OK(ottla_client_new_echo(&client, E));
  ottla_consumer_options options = of_group("g", &name, 0);
  ottla_consumer *consumer = NULL;
  FAILS(OTTLA_STATUS_CONFIG, ottla_consumer_new(client, &options, &consumer, E)); /* The echo has no groups. */
  consumer = consume(client, "t", 1);
  FAILS(invalid, ottla_consumer_commit_wait(consumer, 0, E));
  FAILS(invalid, ottla_consumer_subscribe(consumer, &name, 1, E));
  OK(ottla_consumer_try_next_event(consumer, &batch, &event, E));
  FAILS(invalid, ottla_consumer_try_next_event(consumer, NULL, &event, E));
  FAILS(invalid, ottla_consumer_try_next_event(consumer, &batch, NULL, E));
  FAILS(invalid, ottla_consumer_next_event(NULL, 0, &batch, &event, E));
  FAILS(invalid, ottla_consumer_commit(NULL, 1, E));
  FAILS(invalid, ottla_consumer_commit_wait(NULL, 1, E));
  FAILS(invalid, ottla_consumer_commit_to(consumer, NULL, 1, 1, E));
  FAILS(invalid, ottla_consumer_commit_to(consumer, &to, 1, 1, E)); /* without a topic */
  FAILS(invalid, ottla_consumer_commit_to_wait(NULL, NULL, 0, 1, E));
  FAILS(invalid, ottla_consumer_subscribe(consumer, NULL, 1, E));
  FAILS(invalid, ottla_consumer_leave(NULL, 1, E));
  FAILS(invalid, ottla_consumer_leave_wait(NULL, 1, E));
  FAILS(invalid, ottla_batch_ack(NULL, E));
  FAILS(invalid, ottla_batch_ack_before(NULL, 1, E));
  FAILS(invalid, ottla_wanted_ack_before(NULL, 1, E));
  FAILS(invalid, ottla_wanted_share(NULL, &shared, E));
  FAILS(invalid, ottla_wanted_put_aside(NULL, 1, 1, E));
  FAILS(invalid, ottla_consumer_waits_no_more(NULL, E));
  OK(ottla_consumer_waits_no_more(consumer, E));
  FAILS(invalid, ottla_test_broker_group(NULL, "g", &state, &members, E));
  FAILS(invalid, ottla_test_broker_committed(broker, NULL, "t", 0, &offset, E));
  FAILS(invalid, ottla_test_broker_committed(broker, "g", "t", 0, NULL, E));
  ottla_batch_reached(NULL, 1);
  ottla_event_free(NULL);
  CHECK(ottla_event_kind_of(NULL) == 0 && ottla_event_partitions(NULL) == NULL);
  CHECK(ottla_event_time_left_ms(NULL) == -1);
  ottla_consumer_free(consumer);
  ottla_client_free(client);
}

int main(void) {
  ottla_test_broker_options options = OTTLA_TEST_BROKER_OPTIONS_INIT;
  options.brokers = 2;
  OK(ottla_test_broker_new(&options, &broker, E));
  if (broker == NULL) {
    return summary();
  }
  const char *bootstrap = ottla_test_broker_bootstrap(broker);
  ottla_client *client = connect_to(bootstrap);
  RUN(the_batch_in_hand_is_not_done(client));
  RUN(records_are_reached(client));
  RUN(acked_in_any_order(client));
  RUN(committed_by_hand(bootstrap));
  RUN(events_come_between_batches(client));
  RUN(two_share(client));
  RUN(leaving_is_told(bootstrap));
  RUN(other_topics(client));
  RUN(settings_of_a_member(client));
  RUN(nothing_is_refused());
  ottla_client_free(client);
  ottla_test_broker_free(broker);
  return summary();
}
