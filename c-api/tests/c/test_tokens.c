/* OAUTHBEARER from C: tokens from an endpoint, from files, and from a program's own code, which takes requests out of a queue. */
#include "cluster.h"

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>

#define CANARY "hunter2-Zm9v"

static bool says(const char *text, const char *words) { return strstr(text, words) != NULL; }

static void tell(ottla_test_broker *broker, const char *command) {
  char *answer = NULL;
  OK(ottla_test_broker_do(broker, command, &answer, E));
  ottla_string_free(answer);
}

/* A cluster that takes the token "a.b.c". */
static ottla_test_broker *bearers(void) {
  ottla_test_broker_options options = OTTLA_TEST_BROKER_OPTIONS_INIT;
  ottla_test_broker *broker = NULL;
  options.mechanisms = "OAUTHBEARER";
  OK(ottla_test_broker_new(&options, &broker, E));
  if (broker == NULL) {
    exit(summary());
  }
  OK(ottla_test_broker_create_topic(broker, "t", 1, 1, E));
  tell(broker, "{\"do\":\"add_token\",\"token\":\"a.b.c\",\"principal\":\"alice\"}");
  return broker;
}

/* What a client needs to log in there. */
typedef struct {
  ottla_oauth_options oauth;
  ottla_sasl_options sasl;
  ottla_client_options client;
} settings;

static void set(settings *s, ottla_test_broker *broker) {
  s->oauth = (ottla_oauth_options)OTTLA_OAUTH_OPTIONS_INIT;
  s->sasl = (ottla_sasl_options)OTTLA_SASL_OPTIONS_INIT;
  s->client = (ottla_client_options)OTTLA_CLIENT_OPTIONS_INIT;
  s->sasl.mechanism = OTTLA_SASL_OAUTHBEARER;
  s->sasl.oauth = &s->oauth;
  s->client.bootstrap = broker == NULL ? "127.0.0.1:9" : ottla_test_broker_bootstrap(broker);
  s->client.sasl = &s->sasl;
}

static void refused(const ottla_client_options *options, ottla_status status, const char *words) {
  ottla_client *client = NULL;
  ottla_error *error = NULL;
  ottla_status got = ottla_client_connect(options, &client, &error);
  const char *message = ottla_error_message(error);
  CHECK(client == NULL && got == status && ottla_error_status(error) == status);
  CHECK(says(message, words) && !says(message, CANARY) && !says(ottla_error_advice(error), CANARY));
  if (got != status || !says(message, words)) {
    fprintf(stderr, "%s: %s\n", ottla_status_name(got), message);
  }
  ottla_error_free(error);
  ottla_client_free(client);
}

static void in_and_out(ottla_client *client) {
  ottla_producer *producer = NULL;
  OK(ottla_producer_new(client, NULL, &producer, E));
  ottla_record record = {.value = (const uint8_t *)"in", .value_len = 2};
  size_t accepted = 0;
  OK(ottla_producer_send_batch(producer, "t", &record, 1, 1, &accepted, E));
  OK(ottla_producer_flush_wait(producer, PATIENCE_MS, E));
  ottla_consumer *consumer = consume(client, "t", 2);
  ottla_batch *batch = NULL;
  OK(ottla_consumer_next(consumer, PATIENCE_MS, &batch, E));
  CHECK(ottla_batch_len(batch) > 0);
  ottla_batch_free(batch);
  ottla_consumer_free(consumer);
  ottla_producer_free(producer);
}

static void goes_in_and_out(const ottla_client_options *options) {
  ottla_client *client = NULL;
  OK(ottla_client_connect(options, &client, E));
  if (client != NULL) {
    in_and_out(client);
  }
  ottla_client_free(client);
}

/* A token endpoint on a thread: one request after the other, until its socket is shut down. */
typedef struct {
  int listener;
  pthread_t thread;
  char url[64], last[4096];
} endpoint;

static void *serve(void *argument) {
  endpoint *e = argument;
  for (;;) {
    int peer = accept(e->listener, NULL, NULL);
    if (peer < 0) {
      return NULL;
    }
    size_t size = 0;
    const char *body = NULL;
    memset(e->last, 0, sizeof e->last);
    /* All of it has come once the scope is there: it is the end of these forms. */
    while (size + 1 < sizeof e->last && (body == NULL || !says(body, "scope=kafka"))) {
      ssize_t more = read(peer, e->last + size, sizeof e->last - 1 - size);
      if (more <= 0) {
        break;
      }
      size += (size_t)more;
      body = strstr(e->last, "\r\n\r\n");
    }
    /* Base64 of me:hunter2-Zm9v */
    bool knows = says(e->last, "Authorization: Basic bWU6aHVudGVyMi1abTl2\r\n");
    const char *answer = knows ? "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"access_token\":\"a.b.c\",\"expires_in\":3600}"
                               : "HTTP/1.1 401 No\r\nConnection: close\r\n\r\n{\"error\":\"invalid_client\"}";
    CHECK(write(peer, answer, strlen(answer)) == (ssize_t)strlen(answer));
    close(peer);
  }
}

static void open_endpoint(endpoint *e) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof at;
  e->listener = socket(AF_INET, SOCK_STREAM, 0);
  CHECK(e->listener >= 0 && bind(e->listener, (struct sockaddr *)&at, size) == 0 && listen(e->listener, 8) == 0);
  CHECK(getsockname(e->listener, (struct sockaddr *)&at, &size) == 0);
  snprintf(e->url, sizeof e->url, "http://127.0.0.1:%d/token", ntohs(at.sin_port));
  CHECK(pthread_create(&e->thread, NULL, serve, e) == 0);
}

static void close_endpoint(endpoint *e) {
  shutdown(e->listener, SHUT_RDWR);
  CHECK(pthread_join(e->thread, NULL) == 0);
  close(e->listener);
}

static void put(char *path, const char *text) {
  strcpy(path, "/tmp/ottla-c-token-XXXXXX");
  int file = mkstemp(path);
  CHECK(file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text));
  close(file);
}

static void tokens_from_everywhere(void) {
  ottla_test_broker *broker = bearers();
  endpoint at;
  char token_file[32], secret_file[32];
  settings s;
  open_endpoint(&at);
  put(token_file, "a.b.c\n");
  put(secret_file, CANARY "\n");

  const ottla_property extensions[] = {{"logicalCluster", "lkc-1"}};
  ottla_token token = OTTLA_TOKEN_INIT;
  token.token = "a.b.c";
  token.expires_in_ms = 3600000;
  set(&s, broker);
  s.oauth.token = &token;
  s.oauth.extensions = extensions;
  s.oauth.extension_count = 1;
  goes_in_and_out(&s.client);

  set(&s, broker);
  s.oauth.file = token_file;
  goes_in_and_out(&s.client);

  const ottla_property params[] = {{"audience", "a b"}};
  set(&s, broker);
  s.oauth.token_endpoint = at.url;
  s.oauth.client_id = "me";
  s.oauth.client_secret = CANARY;
  s.oauth.scope = "kafka";
  goes_in_and_out(&s.client);
  s.oauth.params = params;
  s.oauth.param_count = 1;
  s.oauth.client_secret = NULL;
  s.oauth.client_secret_file = secret_file;
  goes_in_and_out(&s.client);
  s.oauth.client_secret = CANARY "-wrong";
  s.oauth.client_secret_file = NULL;
  refused(&s.client, OTTLA_STATUS_CREDENTIALS, "401: invalid_client");

  const ottla_property list[] = {
      {"bootstrap.servers", ottla_test_broker_bootstrap(broker)},
      {"security.protocol", "SASL_PLAINTEXT"},
      {"sasl.mechanism", "OAUTHBEARER"},
      {"sasl.oauthbearer.token.endpoint.url", at.url},
      {"sasl.oauthbearer.client.id", "me"},
      {"sasl.oauthbearer.client.secret", CANARY},
      {"sasl.oauthbearer.scope", "kafka"},
  };
  ottla_client_options by_properties = OTTLA_CLIENT_OPTIONS_INIT;
  by_properties.properties = list;
  by_properties.property_count = sizeof list / sizeof *list;
  goes_in_and_out(&by_properties);

  tell(broker, "{\"do\":\"remove_token\",\"token\":\"a.b.c\"}");
  set(&s, broker);
  s.oauth.file = token_file;
  refused(&s.client, OTTLA_STATUS_AUTHENTICATION, "invalid_token");
  unlink(token_file);
  unlink(secret_file);
  close_endpoint(&at);
  ottla_test_broker_free(broker);
}

/* The next thing that is wanted, by the descriptor. */
static ottla_token_request *next_request(ottla_token_requests *requests, ottla_token_request_info *info) {
  ottla_token_request *request = NULL;
  struct pollfd fd = {.fd = ottla_token_requests_fd(requests), .events = POLLIN};
  CHECK(poll(&fd, 1, PATIENCE_MS) == 1);
  OK(ottla_token_requests_next(requests, 0, &request, E));
  CHECK(request != NULL);
  if (request == NULL) {
    exit(summary());
  }
  OK(ottla_token_request_describe(request, info, E));
  return request;
}

static void a_program_gives_tokens(void) {
  ottla_test_broker *broker = bearers();
  ottla_token_requests *requests = NULL;
  ottla_token_provider *provider = NULL;
  ottla_token_request_info info;
  ottla_client *client = NULL, *second = NULL;
  settings s;
  OK(ottla_token_requests_open(&requests, E));
  OK(ottla_token_provider_new(requests, 7, &provider, E));
  set(&s, broker);
  s.oauth.provider = provider;
  OK(ottla_client_new(&s.client, &client, E));
  ottla_token_request *request = next_request(requests, &info);
  CHECK(info.kind == OTTLA_TOKEN_WANTED && info.tag == 7 && info.id > 0 && info.timeout_ms > 0);
  CHECK(info.timeout_ms <= 10000);

  ottla_token token = OTTLA_TOKEN_INIT;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_token_request_give(request, NULL, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_token_request_give(request, &token, E));
  token.token = "a.b.c";
  token.expires_at_ms = time(NULL) + 3600;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_token_request_give(request, &token, E)); /* Seconds. */
  token.expires_at_ms *= 1000;
  token.expires_in_ms = 1;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_token_request_give(request, &token, E)); /* Both. */
  token.expires_in_ms = 0;
  OK(ottla_token_request_give(request, &token, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_token_request_give(request, &token, E)); /* Twice. */
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_token_request_fail(request, "no", E));
  OK(ottla_token_request_describe(request, &info, E));
  CHECK(info.timeout_ms == 0);
  ottla_token_request_free(request);
  ottla_completion done = next_completion(client);
  CHECK(done.kind == OTTLA_COMPLETION_CONNECTED && done.error == NULL);
  in_and_out(client);

  /* One token for all that have the provider, which is released with the last of them. */
  OK(ottla_client_connect(&s.client, &second, E));
  ottla_token_provider_free(provider);
  ottla_client_free(client);
  OK(ottla_token_requests_next(requests, 0, &request, E));
  CHECK(request == NULL);
  in_and_out(second);
  ottla_client_free(second);
  request = next_request(requests, &info);
  CHECK(info.kind == OTTLA_TOKEN_RELEASED && info.tag == 7 && info.id == 0 && info.timeout_ms == 0);
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_token_request_fail(request, "no", E));
  ottla_token_request_free(request);
  ottla_token_requests_free(requests);
  ottla_test_broker_free(broker);
}

/* What a program keeps for a provider it would keep for ever. */
static void ends_are_told_after_a_close(void) {
  ottla_token_requests *requests = NULL;
  ottla_token_provider *providers[2] = {NULL, NULL};
  ottla_token_request_info info;
  ottla_token_request *request = NULL;
  OK(ottla_token_requests_open(&requests, E));
  for (int i = 0; i < 2; i++) {
    OK(ottla_token_provider_new(requests, 1 + i, &providers[i], E));
  }
  ottla_token_provider_free(providers[0]);
  OK(ottla_token_requests_close(requests, E));
  ottla_token_provider_free(providers[1]);
  for (uint64_t tag = 1; tag <= 2; tag++) {
    request = next_request(requests, &info);
    CHECK(info.kind == OTTLA_TOKEN_RELEASED && info.tag == tag);
    ottla_token_request_free(request);
  }
  FAILS(OTTLA_STATUS_CLOSED, ottla_token_requests_next(requests, -1, &request, E));
  ottla_token_requests_free(requests);
}

/* How a thread answers all requests. */
typedef struct {
  ottla_token_requests *requests;
  const char *token, *words;
  int64_t life_ms;
  ottla_test_broker *broker;
  atomic_int asked;
} answers;

static void *answer(void *argument) {
  answers *a = argument;
  ottla_token_request *request = NULL;
  while (ottla_token_requests_next(a->requests, -1, &request, NULL) == OTTLA_STATUS_OK) {
    ottla_token_request_info info;
    OK(ottla_token_request_describe(request, &info, E));
    if (info.kind == OTTLA_TOKEN_WANTED) {
      a->asked++;
      ottla_token token = OTTLA_TOKEN_INIT;
      char own[32], command[128];
      token.token = a->token;
      token.expires_in_ms = a->life_ms;
      if (a->broker != NULL) {
        snprintf(own, sizeof own, "t.%d", atomic_load(&a->asked));
        snprintf(command, sizeof command,
                 "{\"do\":\"add_token\",\"token\":\"%s\",\"principal\":\"alice\",\"life_ms\":%lld}", own,
                 (long long)a->life_ms);
        tell(a->broker, command);
        token.token = own;
      }
      if (a->words != NULL) {
        OK(ottla_token_request_fail(request, a->words, E));
      } else if (token.token != NULL) {
        OK(ottla_token_request_give(request, &token, E));
      } /* Else it is freed without an answer. */
    }
    ottla_token_request_free(request);
  }
  return NULL;
}

static void begin(answers *a, pthread_t *thread, ottla_token_provider **provider) {
  OK(ottla_token_requests_open(&a->requests, E));
  OK(ottla_token_provider_new(a->requests, 1, provider, E));
  CHECK(pthread_create(thread, NULL, answer, a) == 0);
}

static void end(answers *a, pthread_t thread, ottla_token_provider *provider) {
  ottla_token_provider_free(provider);
  OK(ottla_token_requests_close(a->requests, E));
  CHECK(pthread_join(thread, NULL) == 0);
  ottla_token_requests_free(a->requests);
}

static void a_program_that_gives_none(void) {
  static const struct {
    const char *token, *words, *told;
    ottla_status status;
  } tries[] = {
      {NULL, "the vault is sealed", "the token provider: the vault is sealed", OTTLA_STATUS_CREDENTIALS},
      {NULL, NULL, "the token provider gave no answer", OTTLA_STATUS_CREDENTIALS},
      {CANARY "\xc3\xbc", NULL, "characters that none can have", OTTLA_STATUS_CREDENTIALS},
      {"", NULL, "the token is empty", OTTLA_STATUS_CREDENTIALS},
      {"no.such.token", NULL, "the token is refused", OTTLA_STATUS_AUTHENTICATION},
  };
  ottla_test_broker *broker = bearers();
  for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
    answers a = {.token = tries[i].token, .words = tries[i].words};
    ottla_token_provider *provider = NULL;
    pthread_t thread;
    settings s;
    begin(&a, &thread, &provider);
    set(&s, broker);
    s.oauth.provider = provider;
    s.client.connect_timeout_ms = 500;
    refused(&s.client, tries[i].status, tries[i].told);
    end(&a, thread, provider);
    CHECK(a.asked > 0);
  }
  ottla_test_broker_free(broker);
}

/* It takes the request and does nothing; the client that wanted it is closed meanwhile. */
static void a_program_that_never_answers(void) {
  ottla_test_broker *broker = bearers();
  ottla_token_requests *requests = NULL;
  ottla_token_provider *provider = NULL;
  ottla_token_request_info info, ended;
  ottla_client *client = NULL;
  settings s;
  OK(ottla_token_requests_open(&requests, E));
  OK(ottla_token_provider_new(requests, 1, &provider, E));
  set(&s, broker);
  s.oauth.provider = provider;
  OK(ottla_client_new(&s.client, &client, E));
  ottla_token_request *late = next_request(requests, &info);
  ottla_client_free(client);
  ottla_token_request *end = next_request(requests, &ended);
  CHECK(ended.kind == OTTLA_TOKEN_GIVEN_UP && ended.id == info.id && ended.tag == 1);
  ottla_token_request_free(end);
  OK(ottla_token_request_describe(late, &info, E));
  CHECK(info.timeout_ms == 0);
  ottla_token token = OTTLA_TOKEN_INIT;
  token.token = "late";
  OK(ottla_token_request_give(late, &token, E));
  ottla_token_request_free(late);

  /* It was of no use to anybody: the next one asks again. */
  OK(ottla_client_new(&s.client, &client, E));
  late = next_request(requests, &info);
  CHECK(info.kind == OTTLA_TOKEN_WANTED);
  token.token = "a.b.c";
  OK(ottla_token_request_give(late, &token, E));
  ottla_token_request_free(late);
  ottla_completion done = next_completion(client);
  CHECK(done.kind == OTTLA_COMPLETION_CONNECTED && done.error == NULL);
  in_and_out(client);
  ottla_client_free(client);

  /* Handles may be freed in any order, the queue too. Another provider has no token yet. */
  ottla_token_provider_free(provider);
  OK(ottla_token_provider_new(requests, 2, &provider, E));
  s.oauth.provider = provider;
  OK(ottla_client_new(&s.client, &client, E));
  do {
    late = next_request(requests, &info);
    if (info.kind != OTTLA_TOKEN_WANTED) {
      ottla_token_request_free(late);
    }
  } while (info.kind != OTTLA_TOKEN_WANTED);
  CHECK(info.tag == 2);
  ottla_token_provider *left = NULL;
  OK(ottla_token_provider_new(requests, 3, &left, E));
  ottla_token_requests_free(requests);
  ottla_client_free(client);
  OK(ottla_token_request_give(late, &token, E));
  ottla_token_request_free(late);
  s.oauth.provider = left;
  s.client.connect_timeout_ms = 500;
  refused(&s.client, OTTLA_STATUS_CREDENTIALS, "takes out no more requests");
  ottla_token_provider_free(left);
  ottla_token_provider_free(provider);
  ottla_test_broker_free(broker);
}

static void tokens_are_renewed(void) {
  ottla_test_broker *broker = bearers();
  answers a = {.broker = broker, .life_ms = 3000};
  ottla_token_provider *provider = NULL;
  pthread_t thread;
  ottla_client *client = NULL;
  ottla_producer *producer = NULL;
  settings s;
  begin(&a, &thread, &provider);
  set(&s, broker);
  s.oauth.provider = provider;
  OK(ottla_client_connect(&s.client, &client, E));
  OK(ottla_producer_new(client, NULL, &producer, E));
  /* Sessions end with their tokens: once a fourth one is there, two have ended. */
  while (a.asked < 4) {
    ottla_record record = {0};
    size_t accepted = 0;
    OK(ottla_producer_send_batch(producer, "t", &record, 1, 1, &accepted, E));
    ottla_completion done = next_completion(client);
    CHECK(accepted == 1 && done.error == NULL);
    ottla_error_free(done.error);
  }
  ottla_producer_free(producer);
  ottla_client_free(client);
  end(&a, thread, provider);
  ottla_test_broker_free(broker);
}

static void what_can_not_be(void) {
  ottla_token token = OTTLA_TOKEN_INIT;
  token.token = "t";
  const ottla_property bad[] = {{"auth", CANARY}};
  const struct {
    ottla_oauth_options oauth;
    ottla_status status;
    const char *words;
  } tries[] = {
      {{.file = NULL}, OTTLA_STATUS_INVALID_ARGUMENT, "one of token_endpoint, file, token and provider"},
      {{.file = "/t", .token = &token}, OTTLA_STATUS_INVALID_ARGUMENT, "one of token_endpoint, file"},
      {{.file = ""}, OTTLA_STATUS_CONFIG, "no name"},
      {{.file = "/t", .scope = "all"}, OTTLA_STATUS_INVALID_ARGUMENT, "scope is of token_endpoint alone"},
      {{.token_endpoint = "https://idp/t"}, OTTLA_STATUS_INVALID_ARGUMENT, "client_id is null"},
      {{.token_endpoint = "https://idp/t", .client_id = "me"}, OTTLA_STATUS_CONFIG, "secret is missing"},
      {{.token_endpoint = "https://idp/t", .client_id = "me", .client_secret = CANARY, .client_secret_file = CANARY},
       OTTLA_STATUS_CONFIG, "a client secret and a file"},
      {{.token_endpoint = "https://me:" CANARY "@idp/t", .client_id = "me", .client_secret = CANARY},
       OTTLA_STATUS_CONFIG, "'@'"},
      {{.token_endpoint = "https://idp/t", .client_id = "me", .client_secret = CANARY, .ca = "/no/such.pem"},
       OTTLA_STATUS_CONFIG, "/no/such.pem"},
      {{.token = &token, .extensions = bad, .extension_count = 1}, OTTLA_STATUS_CONFIG, "an extension has a name"},
  };
  for (size_t i = 0; i < sizeof tries / sizeof *tries; i++) {
    settings s;
    set(&s, NULL);
    s.oauth = tries[i].oauth;
    s.oauth.size = sizeof s.oauth;
    refused(&s.client, tries[i].status, tries[i].words);
  }
  settings s;
  set(&s, NULL);
  s.sasl.oauth = NULL;
  refused(&s.client, OTTLA_STATUS_INVALID_ARGUMENT, "oauth is null");
  set(&s, NULL);
  s.sasl.user = "alice";
  refused(&s.client, OTTLA_STATUS_INVALID_ARGUMENT, "neither user nor password");
  set(&s, NULL);
  s.oauth.token = &token;
  s.sasl.mechanism = OTTLA_SASL_PLAIN;
  s.sasl.user = s.sasl.password = CANARY;
  refused(&s.client, OTTLA_STATUS_INVALID_ARGUMENT, "OTTLA_SASL_OAUTHBEARER alone");
  /* An older program's options end before it, whatever comes behind those in its memory. */
  s.sasl.size = offsetof(ottla_sasl_options, oauth);
  s.sasl.mechanism = OTTLA_SASL_OAUTHBEARER;
  s.sasl.user = s.sasl.password = NULL;
  refused(&s.client, OTTLA_STATUS_INVALID_ARGUMENT, "oauth is null");

  ottla_token_request *request = NULL;
  ottla_token_request_info info;
  ottla_token_provider *provider = NULL;
  CHECK(ottla_token_requests_fd(NULL) == -1);
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_token_requests_next(NULL, 0, &request, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_token_requests_close(NULL, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_token_provider_new(NULL, 1, &provider, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_token_request_describe(NULL, &info, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_token_request_give(NULL, &token, E));
  ottla_token_requests *requests = NULL;
  OK(ottla_token_requests_open(&requests, E));
  OK(ottla_token_requests_next(requests, 0, &request, E));
  CHECK(request == NULL);
  OK(ottla_token_requests_close(requests, E));
  OK(ottla_token_requests_close(requests, E));
  FAILS(OTTLA_STATUS_CLOSED, ottla_token_requests_next(requests, -1, &request, E));
  ottla_token_requests_free(requests);
  ottla_token_requests_free(NULL);
  ottla_token_request_free(NULL);
  ottla_token_provider_free(NULL);
}

int main(void) {
  RUN(tokens_from_everywhere());
  RUN(a_program_gives_tokens());
  RUN(ends_are_told_after_a_close());
  RUN(a_program_that_gives_none());
  RUN(a_program_that_never_answers());
  RUN(tokens_are_renewed());
  RUN(what_can_not_be());
  return summary();
}
