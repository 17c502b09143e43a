/* Start values of the option structs: all defaults. */
#define OTTLA_CLIENT_OPTIONS_INIT {.size = sizeof(ottla_client_options)}
#define OTTLA_TLS_OPTIONS_INIT {.size = sizeof(ottla_tls_options)}
#define OTTLA_SASL_OPTIONS_INIT {.size = sizeof(ottla_sasl_options)}
#define OTTLA_PRODUCER_OPTIONS_INIT {.size = sizeof(ottla_producer_options)}
#define OTTLA_CONSUMER_OPTIONS_INIT {.size = sizeof(ottla_consumer_options)}
#define OTTLA_TEST_BROKER_OPTIONS_INIT {.size = sizeof(ottla_test_broker_options)}
