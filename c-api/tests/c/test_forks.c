/* Forks that nobody announced. Built without AddressSanitizer: the allocator of gcc 12's does not take its
 * locks before a fork, so that a child of a process with threads may wait for one for ever. */
#include "process.h"

static ottla_client *inherited;
static ottla_producer *inherited_producer;
static ottla_consumer *inherited_consumer;
static ottla_consumer *inherited_member;
static ottla_batch *inherited_batch;
static ottla_wanted *inherited_wanted;
static ottla_token_requests *inherited_requests;
static ottla_token_provider *inherited_provider;
static ottla_token_request *inherited_request;

/* Every call of a handle that was made before the fork, which nobody announced. */
static void a_child_is_told(void) {
  ottla_record record = {0};
  size_t accepted = 9, count = 9;
  ottla_completion done;
  ottla_batch *batch = NULL;
  limit("a_child_is_told"); /* A child has no alarm of its parent's. */
  FAILS(OTTLA_STATUS_FORKED,
        ottla_producer_send_batch(inherited_producer, "t", &record, 1, 1, &accepted, E));
  CHECK(accepted == 0);
  FAILS(OTTLA_STATUS_FORKED, ottla_poll(inherited, &done, 1, -1, &count, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_producer_flush_wait(inherited_producer, -1, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_producer_close_wait(inherited_producer, -1, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_producer_flush(inherited_producer, 7, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_producer_close(inherited_producer, 1000, 8, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_next(inherited_consumer, -1, &batch, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_try_next(inherited_consumer, &batch, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_create_topic_wait(inherited, "u", 1, 1, -1, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_create_topic(inherited, "u", 1, 1, 9, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_close(inherited_consumer, E));
  ottla_event *event = NULL;
  ottla_partition_offset to = {.topic = "t"};
  const char *topic = "t";
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_try_next_event(inherited_member, &batch, &event, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_next_event(inherited_member, -1, &batch, &event, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_commit(inherited_member, 1, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_commit_wait(inherited_member, -1, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_commit_to(inherited_member, &to, 1, 1, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_commit_to_wait(inherited_member, &to, 1, -1, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_subscribe(inherited_member, &topic, 1, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_leave(inherited_member, 1, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_leave_wait(inherited_member, -1, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_consumer_waits_no_more(inherited_member, E));
  /* What is done is the parent's to say. */
  FAILS(OTTLA_STATUS_FORKED, ottla_batch_ack(inherited_batch, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_batch_ack_before(inherited_batch, 1, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_wanted_ack_before(inherited_wanted, INT64_MAX, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_wanted_put_aside(inherited_wanted, 0, 1, E));
  CHECK(ottla_batch_len(inherited_batch) == 1);
  ottla_consumer_free(inherited_member);
  /* A token that is wanted there is not given here, and nobody there gives one to what is made here. */
  ottla_token_request *request = NULL;
  ottla_token token = OTTLA_TOKEN_INIT;
  ottla_oauth_options oauth = OTTLA_OAUTH_OPTIONS_INIT;
  ottla_sasl_options sasl = OTTLA_SASL_OPTIONS_INIT;
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  ottla_client *client = NULL;
  token.token = "a.b.c";
  oauth.provider = inherited_provider;
  sasl.mechanism = OTTLA_SASL_OAUTHBEARER;
  sasl.oauth = &oauth;
  options.bootstrap = "127.0.0.1:9";
  options.sasl = &sasl;
  FAILS(OTTLA_STATUS_FORKED, ottla_token_requests_next(inherited_requests, -1, &request, E));
  FAILS(OTTLA_STATUS_FORKED, ottla_client_new(&options, &client, E));
  OK(ottla_token_request_give(inherited_request, &token, E));
  ottla_token_request_free(inherited_request);
  ottla_token_provider_free(inherited_provider);
  OK(ottla_token_requests_close(inherited_requests, E));
  ottla_token_requests_free(inherited_requests);
  FAILS(OTTLA_STATUS_FORKED, ottla_client_close(inherited, E));
  CHECK(ottla_client_fd(inherited) == -1);
  ottla_consumer_free(inherited_consumer);
  ottla_producer_free(inherited_producer);
  ottla_client_free(inherited);
  /* What is made here works here. */
  there_and_back(NULL);
}

static void forks_are_seen(void) {
  enum { CHILDREN = 20, RECORDS = 200 };
  ottla_test_broker *broker = start();
  inherited = connect_to(ottla_test_broker_bootstrap(broker));
  inherited_producer = produce(inherited, 5);
  inherited_consumer = consume(inherited, "t", 1);
  const char *topic = "t";
  ottla_consumer_options member = OTTLA_CONSUMER_OPTIONS_INIT;
  member.topics = &topic;
  member.topic_count = 1;
  member.group = "g";
  OK(ottla_consumer_new(inherited, &member, &inherited_member, E));
  ottla_batch *nothing = NULL;
  OK(ottla_consumer_next(inherited_member, 0, &nothing, E));
  int32_t state = 0;
  size_t members = 0;
  while (state != OTTLA_TEST_GROUP_STABLE) {
    OK(ottla_test_broker_group(broker, "g", &state, &members, E));
    poll(NULL, 0, 5);
  }
  ottla_record first = {0};
  size_t sent = 0;
  OK(ottla_producer_send_batch(inherited_producer, "t", &first, 1, 1, &sent, E));
  OK(ottla_producer_flush_wait(inherited_producer, PATIENCE_MS, E));
  OK(ottla_consumer_next(inherited_member, PATIENCE_MS, &inherited_batch, E));
  OK(ottla_batch_wanted(inherited_batch, &inherited_wanted, E));
  ottla_oauth_options oauth = OTTLA_OAUTH_OPTIONS_INIT;
  ottla_sasl_options sasl = OTTLA_SASL_OPTIONS_INIT;
  ottla_client_options with_tokens = OTTLA_CLIENT_OPTIONS_INIT;
  ottla_client *logs_in = NULL;
  OK(ottla_token_requests_open(&inherited_requests, E));
  OK(ottla_token_provider_new(inherited_requests, 1, &inherited_provider, E));
  oauth.provider = inherited_provider;
  sasl.mechanism = OTTLA_SASL_OAUTHBEARER;
  sasl.oauth = &oauth;
  with_tokens.bootstrap = ottla_test_broker_bootstrap(broker);
  with_tokens.sasl = &sasl;
  OK(ottla_client_new(&with_tokens, &logs_in, E));
  OK(ottla_token_requests_next(inherited_requests, PATIENCE_MS, &inherited_request, E));
  int ends[CHILDREN];
  /* In the middle of its work, whatever locks its threads hold. */
  for (int child = 0; child < CHILDREN; child++) {
    for (int i = 0; i < RECORDS; i++) {
      ottla_record record = {0};
      size_t accepted = 0;
      OK(ottla_producer_send_batch(inherited_producer, "t", &record, 1, 1, &accepted, E));
      sent += accepted;
    }
    ends[child] = in_child(a_child_is_told);
    CHECK(ends[child] == 0);
  }
  /* What is wanted here is wanted still, for as long as it is waited for: no child has answered. */
  ottla_token_request_info wanted = {0};
  OK(ottla_token_request_describe(inherited_request, &wanted, E));
  CHECK(wanted.kind == OTTLA_TOKEN_WANTED);
  OK(ottla_token_request_fail(inherited_request, "no", E));
  ottla_token_request_free(inherited_request);
  ottla_client_free(logs_in);
  ottla_token_provider_free(inherited_provider);
  ottla_token_requests_free(inherited_requests);
  /* The parent has lost nothing by it. */
  OK(ottla_producer_flush_wait(inherited_producer, PATIENCE_MS, E));
  size_t seen = 0;
  while (seen < sent) {
    ottla_batch *batch = NULL;
    OK(ottla_consumer_next(inherited_consumer, PATIENCE_MS, &batch, E));
    CHECK(batch != NULL);
    if (batch == NULL) {
      break;
    }
    seen += ottla_batch_len(batch);
    ottla_batch_free(batch);
  }
  CHECK(seen == sent);
  /* No child has left the group for its parent. */
  OK(ottla_test_broker_group(broker, "g", &state, &members, E));
  CHECK(state == OTTLA_TEST_GROUP_STABLE && members == 1);
  OK(ottla_batch_ack(inherited_batch, E));
  OK(ottla_consumer_leave_wait(inherited_member, PATIENCE_MS, E));
  ottla_batch_free(inherited_batch);
  ottla_wanted_free(inherited_wanted);
  ottla_consumer_free(inherited_member);
  ottla_consumer_free(inherited_consumer);
  ottla_producer_free(inherited_producer);
  ottla_client_free(inherited);
  ottla_test_broker_free(broker);
}

int main(void) {
  RUN(forks_are_seen());
  return summary();
}
