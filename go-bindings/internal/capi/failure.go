package capi

/*
#include "library.h"

// All of an error in one crossing; the strings live as long as the error.
typedef struct {
	const char *name, *message, *advice;
	int32_t status, broker_code;
	bool retriable, fatal, maybe_written;
} go_failure;

static void go_describe(const ottla_error *e, go_failure *out) {
	out->name = ottla_error_name(e);
	out->message = ottla_error_message(e);
	out->advice = ottla_error_advice(e);
	out->status = ottla_error_status(e);
	out->broker_code = ottla_error_broker_code(e);
	out->retriable = ottla_error_is_retriable(e);
	out->fatal = ottla_error_is_fatal(e);
	out->maybe_written = ottla_error_maybe_written(e);
}
*/
import "C"

// Failure is what an ottla_error says, copied.
type Failure struct {
	// Status is one of the C library's ottla_status.
	Status int32
	// Name is the status's stable lower-case name.
	Name string
	// Message says what happened, Advice what to do about it.
	Message, Advice string
	// BrokerCode is the Kafka error code a broker answered, 0 if none did.
	BrokerCode                     int32
	Retriable, Fatal, MaybeWritten bool
}

// take copies an error and frees it.
func take(e *C.ottla_error) *Failure {
	var f C.go_failure
	C.go_describe(e, &f)
	out := &Failure{
		Status:       int32(f.status),
		Name:         C.GoString(f.name),
		Message:      C.GoString(f.message),
		Advice:       C.GoString(f.advice),
		BrokerCode:   int32(f.broker_code),
		Retriable:    bool(f.retriable),
		Fatal:        bool(f.fatal),
		MaybeWritten: bool(f.maybe_written),
	}
	C.ottla_error_free(e)
	return out
}

// outcome turns what a call gave back into a failure, nil for success.
func outcome(status C.ottla_status, e *C.ottla_error) *Failure {
	if e != nil {
		return take(e)
	}
	if status == C.OTTLA_STATUS_OK {
		return nil
	}
	return &Failure{
		Status:  int32(status),
		Name:    C.GoString(C.ottla_status_name(C.int32_t(status))),
		Message: "the library gave no reason",
	}
}

// closed is the failure of a handle that was freed.
func closed(what string) *Failure {
	return &Failure{
		Status:  int32(C.OTTLA_STATUS_CLOSED),
		Name:    "closed",
		Message: "the " + what + " is closed",
		Advice:  "make a new handle",
		Fatal:   true,
	}
}

// StatusName is the stable lower-case name of a status, whatever the number.
func StatusName(status int32) string {
	return C.GoString(C.ottla_status_name(C.int32_t(status)))
}
