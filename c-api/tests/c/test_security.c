/* TLS and SASL from C, on brokers that have them; and that a secret is shown nowhere. */
#include "cluster.h"

#define CANARY "hunter2-Zm9v"

static const ottla_property USERS[] = {{"alice", CANARY}};
static const int32_t MECHANISMS[] = {OTTLA_SASL_PLAIN, OTTLA_SASL_SCRAM_SHA_256, OTTLA_SASL_SCRAM_SHA_512};
static const char *const NAMES[] = {"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"};
enum { MECHANISM_COUNT = 3 };

static ottla_test_broker *start(const ottla_test_broker_options *options) {
  ottla_test_broker *broker = NULL;
  OK(ottla_test_broker_new(options, &broker, E));
  if (broker == NULL) {
    exit(summary());
  }
  OK(ottla_test_broker_create_topic(broker, "t", 1, 1, E));
  return broker;
}

static ottla_test_broker *secure(int32_t tls) {
  ottla_test_broker_options options = OTTLA_TEST_BROKER_OPTIONS_INIT;
  options.tls = tls;
  options.users = USERS;
  options.user_count = 1;
  return start(&options);
}

static uint64_t logins(ottla_test_broker *broker) {
  uint64_t begun = 0, succeeded = 0;
  OK(ottla_test_broker_logins(broker, &begun, &succeeded, E));
  CHECK(succeeded <= begun);
  return begun;
}

static bool says(const char *text, const char *words) { return strstr(text, words) != NULL; }

/* A client that is to be refused: with this status and these words, and without the secret. */
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

/* A record in and out. */
static void goes_in_and_out(const ottla_client_options *options) {
  ottla_client *client = NULL;
  ottla_producer *producer = NULL;
  OK(ottla_client_connect(options, &client, E));
  if (client == NULL) {
    return;
  }
  OK(ottla_producer_new(client, NULL, &producer, E));
  ottla_record record = {.value = (const uint8_t *)"in", .value_len = 2};
  size_t accepted = 0;
  OK(ottla_producer_send_batch(producer, "t", &record, 1, 1, &accepted, E));
  ottla_completion done = next_completion(client);
  CHECK(accepted == 1 && done.error == NULL && done.offset >= 0);
  ottla_consumer *consumer = consume(client, "t", 2);
  ottla_batch *batch = NULL;
  OK(ottla_consumer_next(consumer, PATIENCE_MS, &batch, E));
  ottla_record_view view = {0};
  OK(ottla_batch_record(batch, 0, &view, E));
  CHECK(same(view.value, view.value_len, "in"));
  ottla_batch_free(batch);
  ottla_consumer_free(consumer);
  ottla_producer_free(producer);
  ottla_client_free(client);
}

static void every_mechanism(int32_t with_tls) {
  ottla_test_broker *broker = secure(with_tls);
  ottla_tls_options tls = OTTLA_TLS_OPTIONS_INIT;
  tls.ca = ottla_test_broker_ca(broker);
  CHECK(says(tls.ca, "-----BEGIN CERTIFICATE") == (with_tls != 0));
  for (int i = 0; i < MECHANISM_COUNT; i++) {
    ottla_sasl_options sasl = OTTLA_SASL_OPTIONS_INIT;
    ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
    char password[] = CANARY;
    sasl.mechanism = MECHANISMS[i];
    sasl.user = "alice";
    sasl.password = password;
    options.bootstrap = ottla_test_broker_bootstrap(broker);
    options.tls = with_tls ? &tls : NULL;
    options.sasl = &sasl;
    goes_in_and_out(&options);

    /* The library has its own copy: what the caller had may be gone before a connection is made. */
    ottla_client *client = NULL;
    options.tag = 7;
    OK(ottla_client_new(&options, &client, E));
    memset(password, 'x', sizeof password - 1);
    ottla_completion done = next_completion(client);
    CHECK(done.kind == OTTLA_COMPLETION_CONNECTED && done.tag == 7 && done.error == NULL);
    ottla_error_free(done.error);
    ottla_client_free(client);
  }
  ottla_test_broker_free(broker);
}

static void the_mechanism_that_is_named(void) {
  for (int i = 0; i < MECHANISM_COUNT; i++) {
    ottla_test_broker_options options = OTTLA_TEST_BROKER_OPTIONS_INIT;
    options.users = USERS;
    options.user_count = 1;
    options.mechanisms = NAMES[i];
    ottla_test_broker *broker = start(&options);
    for (int k = 0; k < MECHANISM_COUNT; k++) {
      ottla_sasl_options sasl = OTTLA_SASL_OPTIONS_INIT;
      ottla_client_options of_client = OTTLA_CLIENT_OPTIONS_INIT;
      sasl.mechanism = MECHANISMS[k];
      sasl.user = "alice";
      sasl.password = CANARY;
      of_client.bootstrap = ottla_test_broker_bootstrap(broker);
      of_client.sasl = &sasl;
      if (i == k) {
        goes_in_and_out(&of_client);
      } else {
        refused(&of_client, OTTLA_STATUS_AUTHENTICATION, NAMES[i]);
      }
    }
    ottla_test_broker_free(broker);
  }
}

static void a_wrong_password_is_one_login(void) {
  ottla_test_broker *broker = secure(1);
  ottla_tls_options tls = OTTLA_TLS_OPTIONS_INIT;
  tls.ca = ottla_test_broker_ca(broker);
  for (int i = 0; i < MECHANISM_COUNT; i++) {
    ottla_sasl_options sasl = OTTLA_SASL_OPTIONS_INIT;
    ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
    sasl.mechanism = MECHANISMS[i];
    sasl.user = "alice";
    sasl.password = CANARY "-wrong";
    options.bootstrap = ottla_test_broker_bootstrap(broker);
    options.tls = &tls;
    options.sasl = &sasl;
    /* Who tried it again until then would be stopped by the limit of tests. */
    options.connect_timeout_ms = 3600000;
    uint64_t before = logins(broker);
    refused(&options, OTTLA_STATUS_AUTHENTICATION, "Authentication failed");
    CHECK(logins(broker) == before + 1);
  }
  /* A password that is changed is another one. */
  ottla_sasl_options sasl = OTTLA_SASL_OPTIONS_INIT;
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  OK(ottla_test_broker_set_user(broker, "alice", "changed", E));
  sasl.mechanism = OTTLA_SASL_SCRAM_SHA_512;
  sasl.user = "alice";
  sasl.password = "changed";
  options.bootstrap = ottla_test_broker_bootstrap(broker);
  options.tls = &tls;
  options.sasl = &sasl;
  goes_in_and_out(&options);
  ottla_test_broker_free(broker);
}

static void certificates(void) {
  ottla_test_broker_options of_broker = OTTLA_TEST_BROKER_OPTIONS_INIT;
  of_broker.tls = 1;
  ottla_test_broker *broker = start(&of_broker), *other = start(&of_broker);
  ottla_tls_options tls = OTTLA_TLS_OPTIONS_INIT;
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  options.bootstrap = ottla_test_broker_bootstrap(broker);
  options.tls = &tls;
  /* No CA of the system has signed it. */
  tls.ca = ottla_test_broker_ca(other);
  refused(&options, OTTLA_STATUS_TLS, "");
  tls.verify = OTTLA_VERIFY_CHAIN;
  refused(&options, OTTLA_STATUS_TLS, "");
  tls.verify = OTTLA_VERIFY_NONE;
  goes_in_and_out(&options);
  tls.ca = ottla_test_broker_ca(broker);
  tls.verify = OTTLA_VERIFY_FULL;
  goes_in_and_out(&options);
  tls.server_name = "somewhere.else";
  refused(&options, OTTLA_STATUS_TLS, "somewhere.else");
  tls.verify = OTTLA_VERIFY_CHAIN;
  goes_in_and_out(&options);
  ottla_test_broker_free(other);
  ottla_test_broker_free(broker);

  of_broker.client_certificates = 1;
  broker = start(&of_broker);
  ottla_tls_options own = OTTLA_TLS_OPTIONS_INIT;
  own.ca = ottla_test_broker_ca(broker);
  options.bootstrap = ottla_test_broker_bootstrap(broker);
  options.tls = &own;
  refused(&options, OTTLA_STATUS_TLS, "ertificate");
  char *certificate = NULL, *key = NULL;
  OK(ottla_test_broker_client_identity(broker, "alice", &certificate, &key, E));
  own.certificate = certificate;
  own.key = key;
  goes_in_and_out(&options);

  /* The same by their paths. */
  const char *texts[] = {own.ca, certificate, key};
  char paths[3][32];
  for (int i = 0; i < 3; i++) {
    strcpy(paths[i], "/tmp/ottla-c-pem-XXXXXX");
    int file = mkstemp(paths[i]);
    CHECK(file >= 0 && write(file, texts[i], strlen(texts[i])) == (ssize_t)strlen(texts[i]));
    close(file);
  }
  own.ca = paths[0];
  own.certificate = paths[1];
  own.key = paths[2];
  goes_in_and_out(&options);
  for (int i = 0; i < 3; i++) {
    unlink(paths[i]);
  }
  ottla_string_free(certificate);
  ottla_string_free(key);
  ottla_test_broker_free(broker);
}

static void the_wrong_listener(void) {
  ottla_test_broker *with_tls = secure(1), *without = secure(0);
  ottla_tls_options tls = OTTLA_TLS_OPTIONS_INIT;
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  tls.ca = ottla_test_broker_ca(with_tls);
  options.connect_timeout_ms = 500;
  options.bootstrap = ottla_test_broker_bootstrap(with_tls);
  refused(&options, OTTLA_STATUS_NOT_KAFKA, "TLS");
  options.bootstrap = ottla_test_broker_bootstrap(without);
  options.tls = &tls;
  refused(&options, OTTLA_STATUS_TLS, "without TLS");
  ottla_test_broker_free(with_tls);
  ottla_test_broker_free(without);
}

static void properties(void) {
  ottla_test_broker *broker = secure(1);
  for (int i = 0; i < MECHANISM_COUNT; i++) {
    const ottla_property list[] = {
        {"bootstrap.servers", ottla_test_broker_bootstrap(broker)},
        {"security.protocol", "SASL_SSL"},
        {"ssl.ca.pem", ottla_test_broker_ca(broker)},
        {"sasl.mechanism", NAMES[i]},
        {"sasl.username", "alice"},
        {"sasl.password", CANARY},
        {"linger.ms", "5"},
    };
    ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
    options.properties = list;
    options.property_count = sizeof list / sizeof *list;
    goes_in_and_out(&options);

    /* The rest of them can be asked for, and nothing of these is told. */
    char *json = NULL;
    OK(ottla_properties_json(OTTLA_OWNER_CLIENT, list, options.property_count, &json, E));
    CHECK(json != NULL && says(json, "\"tls\":true") && says(json, NAMES[i]) && !says(json, CANARY) &&
          !says(json, "alice"));
    ottla_string_free(json);

    /* What is said beside them goes before them. */
    ottla_sasl_options sasl = OTTLA_SASL_OPTIONS_INIT;
    sasl.mechanism = MECHANISMS[i];
    sasl.user = "alice";
    sasl.password = "wrong";
    options.sasl = &sasl;
    refused(&options, OTTLA_STATUS_AUTHENTICATION, "Authentication failed");
  }
  const ottla_property odd[] = {{"bootstrap.servers", "h:1"}, {"sasl.password", CANARY}, {"zebra", CANARY}};
  ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
  options.properties = odd;
  options.property_count = 2;
  refused(&options, OTTLA_STATUS_CONFIG, "set security.protocol");
  options.property_count = 3;
  refused(&options, OTTLA_STATUS_CONFIG, "zebra");
  options.properties = NULL;
  refused(&options, OTTLA_STATUS_INVALID_ARGUMENT, "properties is null");
  options.property_count = 0;
  refused(&options, OTTLA_STATUS_INVALID_ARGUMENT, "bootstrap is null");
  ottla_test_broker_free(broker);
}

static void what_can_not_be(void) {
  static const struct {
    ottla_tls_options tls;
    ottla_status status;
    const char *words;
  } tls[] = {
      {{.verify = 4}, OTTLA_STATUS_INVALID_ARGUMENT, "ottla_verify"},
      {{.verify = -1}, OTTLA_STATUS_INVALID_ARGUMENT, "ottla_verify"},
      {{.reserved = 1}, OTTLA_STATUS_INVALID_ARGUMENT, "reserved of tls"},
      {{.certificate = CANARY}, OTTLA_STATUS_CONFIG, "key is missing"},
      {{.key = "-----BEGIN PRIVATE KEY-----\n" CANARY}, OTTLA_STATUS_CONFIG, "certificate is missing"},
      {{.server_name = "no name"}, OTTLA_STATUS_CONFIG, "server_name"},
      {{.ca = "/no/such.pem"}, OTTLA_STATUS_CONFIG, "/no/such.pem"},
      {{.ca = "-----BEGIN CERTIFICATE-----\n" CANARY}, OTTLA_STATUS_CONFIG, "ca"},
      {{.ca = "\xff"}, OTTLA_STATUS_INVALID_ARGUMENT, "ca is not UTF-8"},
  };
  for (size_t i = 0; i < sizeof tls / sizeof *tls; i++) {
    ottla_tls_options one = tls[i].tls;
    ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
    one.size = sizeof one;
    options.bootstrap = "127.0.0.1:9";
    options.tls = &one;
    refused(&options, tls[i].status, tls[i].words);
  }
  static const struct {
    ottla_sasl_options sasl;
    ottla_status status;
    const char *words;
  } sasl[] = {
      {{.user = "u", .password = CANARY}, OTTLA_STATUS_INVALID_ARGUMENT, "0 is no member of ottla_sasl_mech"},
      {{.user = "u", .password = CANARY, .mechanism = 5}, OTTLA_STATUS_INVALID_ARGUMENT, "5 is no member"},
      {{.password = CANARY, .mechanism = 1}, OTTLA_STATUS_INVALID_ARGUMENT, "user is null"},
      {{.user = "u", .mechanism = 1}, OTTLA_STATUS_INVALID_ARGUMENT, "password is null"},
      {{.user = "u", .password = "", .mechanism = 1}, OTTLA_STATUS_CONFIG, "password is empty"},
      {{.user = "", .password = CANARY, .mechanism = 1}, OTTLA_STATUS_CONFIG, "user name is empty"},
      {{.user = "u", .password = CANARY "\xff", .mechanism = 1}, OTTLA_STATUS_INVALID_ARGUMENT, "password is not UTF-8"},
      {{.user = "u", .password = CANARY, .mechanism = 1, .delegation_token = 1}, OTTLA_STATUS_CONFIG, "SCRAM alone"},
      {{.user = "\xc3\xa9", .password = CANARY, .mechanism = 2}, OTTLA_STATUS_CONFIG, "ASCII"},
  };
  for (size_t i = 0; i < sizeof sasl / sizeof *sasl; i++) {
    ottla_sasl_options one = sasl[i].sasl;
    ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
    one.size = sizeof one;
    options.bootstrap = "127.0.0.1:9";
    options.sasl = &one;
    refused(&options, sasl[i].status, sasl[i].words);
  }
  /* An older program's options end before them, whatever comes behind those in its memory. */
  ottla_client_options older = OTTLA_CLIENT_OPTIONS_INIT;
  older.size = offsetof(ottla_client_options, tls);
  older.bootstrap = "";
  older.tls = (const ottla_tls_options *)1;
  older.sasl = (const ottla_sasl_options *)1;
  older.property_count = 1;
  refused(&older, OTTLA_STATUS_CONFIG, "bootstrap");
}

static void test_brokers_that_can_not_be(void) {
  static const ottla_property wrong[] = {{"alice", "sing"}};
  ottla_test_broker_options options[] = {
      {.client_certificates = 1}, {.mechanisms = "GSSAPI"}, {.acls = wrong, .acl_count = 1}, {.user_count = 1}};
  for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
    ottla_test_broker *broker = NULL;
    options[i].size = sizeof options[i];
    FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_test_broker_new(&options[i], &broker, E));
    CHECK(broker == NULL);
  }
  ottla_test_broker_options plain = OTTLA_TEST_BROKER_OPTIONS_INIT;
  ottla_test_broker *broker = start(&plain);
  char *certificate = NULL, *key = NULL;
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_test_broker_client_identity(broker, "a", &certificate, &key, E));
  FAILS(OTTLA_STATUS_INVALID_ARGUMENT, ottla_test_broker_set_user(broker, "a", "b", E));
  CHECK(ottla_test_broker_ca(broker)[0] == 0 && ottla_test_broker_ca(NULL)[0] == 0);
  CHECK(certificate == NULL && key == NULL && logins(broker) == 0);
  ottla_test_broker_free(broker);
}

static void rights(void) {
  static const ottla_property acls[] = {{"alice", "write t"}, {"alice", "read t"}};
  ottla_test_broker_options options = OTTLA_TEST_BROKER_OPTIONS_INIT;
  options.users = USERS;
  options.user_count = 1;
  options.acls = acls;
  options.acl_count = 2;
  ottla_test_broker *broker = start(&options);
  ottla_sasl_options sasl = OTTLA_SASL_OPTIONS_INIT;
  ottla_client_options of_client = OTTLA_CLIENT_OPTIONS_INIT;
  ottla_client *client = NULL;
  sasl.mechanism = OTTLA_SASL_PLAIN;
  sasl.user = "alice";
  sasl.password = CANARY;
  of_client.bootstrap = ottla_test_broker_bootstrap(broker);
  of_client.sasl = &sasl;
  goes_in_and_out(&of_client);
  OK(ottla_client_connect(&of_client, &client, E));
  FAILS(OTTLA_STATUS_AUTHORIZATION, ottla_create_topic_wait(client, "new", 1, 1, PATIENCE_MS, E));
  ottla_client_free(client);
  ottla_test_broker_free(broker);
}

/* All that the library has to say for a program's log, at its most talkative. */
static void nothing_that_is_logged_has_the_secret(void) {
  ottla_logs *reader = NULL;
  OK(ottla_logs_open(OTTLA_LOG_TRACE, &reader, E));
  ottla_test_broker *broker = secure(0);
  for (int i = 0; i < MECHANISM_COUNT; i++) {
    ottla_sasl_options sasl = OTTLA_SASL_OPTIONS_INIT;
    ottla_client_options options = OTTLA_CLIENT_OPTIONS_INIT;
    sasl.mechanism = MECHANISMS[i];
    sasl.user = "alice";
    sasl.password = CANARY;
    options.bootstrap = ottla_test_broker_bootstrap(broker);
    options.sasl = &sasl;
    goes_in_and_out(&options);
    sasl.password = CANARY "-wrong";
    refused(&options, OTTLA_STATUS_AUTHENTICATION, "Authentication failed");
  }
  size_t lines = 0;
  for (;;) {
    ottla_log *log = NULL;
    OK(ottla_logs_next(reader, 0, &log, E));
    if (log == NULL) {
      break;
    }
    lines++;
    ottla_log_info info = {0};
    OK(ottla_log_describe(log, &info, E));
    CHECK(!says(info.message, CANARY));
    enum { FIELDS = 32 };
    ottla_log_field fields[FIELDS];
    size_t count = 0;
    OK(ottla_log_fields(log, fields, FIELDS, &count, E));
    for (size_t i = 0; i < count; i++) {
      CHECK(!says(fields[i].value, CANARY));
    }
    ottla_log_free(log);
  }
  CHECK(lines > 0);
  ottla_logs_free(reader);
  ottla_test_broker_free(broker);
}

int main(void) {
  RUN(every_mechanism(1));
  RUN(every_mechanism(0));
  RUN(the_mechanism_that_is_named());
  RUN(a_wrong_password_is_one_login());
  RUN(certificates());
  RUN(the_wrong_listener());
  RUN(properties());
  RUN(what_can_not_be());
  RUN(test_brokers_that_can_not_be());
  RUN(rights());
  RUN(nothing_that_is_logged_has_the_secret());
  return summary();
}
