package capi

/*
#include <stdlib.h>
#include "library.h"
*/
import "C"

import "unsafe"

// memory is C's, for arrays and texts that a call reads: Go may not lend memory that holds pointers to its own.
type memory []block

type block struct {
	at unsafe.Pointer
	// secret is how many bytes are overwritten before they are freed.
	secret int
}

func (m *memory) text(s string) *C.char {
	t := C.CString(s)
	*m = append(*m, block{at: unsafe.Pointer(t)})
	return t
}

// option is text, and nil for "", which is the default of every option. The NUL check has been done by the caller.
func (m *memory) option(s string) *C.char {
	if s == "" {
		return nil
	}
	return m.text(s)
}

// secret is text that is overwritten before it is freed: nobody is to find a password in what was this program's
// memory.
func (m *memory) secret(s Secret) *C.char {
	text := s.reveal()
	if text == "" {
		return nil
	}
	t := C.CString(text)
	*m = append(*m, block{at: unsafe.Pointer(t), secret: len(text)})
	return t
}

// array has room for n things of a size, and is nil for none.
func (m *memory) array(n int, size uintptr) unsafe.Pointer {
	if n == 0 {
		return nil
	}
	array := C.malloc(C.size_t(n) * C.size_t(size))
	*m = append(*m, block{at: array})
	return array
}

func (m *memory) texts(list []string) **C.char {
	array := (**C.char)(m.array(len(list), unsafe.Sizeof((*C.char)(nil))))
	for i, s := range list {
		unsafe.Slice(array, len(list))[i] = m.text(s)
	}
	return array
}

func (m *memory) assignments(list []Assignment) *C.ottla_assignment {
	array := (*C.ottla_assignment)(m.array(len(list), unsafe.Sizeof(C.ottla_assignment{})))
	out := unsafe.Slice(array, len(list))
	for i, a := range list {
		out[i] = C.ottla_assignment{
			topic:       m.text(a.Topic),
			partition:   C.int32_t(a.Partition),
			start:       C.int32_t(a.Start),
			start_value: C.int64_t(a.StartValue),
		}
	}
	return array
}

func (m *memory) partitions(list []Partition) *C.ottla_partition {
	array := (*C.ottla_partition)(m.array(len(list), unsafe.Sizeof(C.ottla_partition{})))
	out := unsafe.Slice(array, len(list))
	for i, p := range list {
		out[i] = C.ottla_partition{topic: m.text(p.Topic), partition: C.int32_t(p.Partition)}
	}
	return array
}

func (m *memory) ends(list []End) *C.ottla_partition_offset {
	array := (*C.ottla_partition_offset)(m.array(len(list), unsafe.Sizeof(C.ottla_partition_offset{})))
	out := unsafe.Slice(array, len(list))
	for i, end := range list {
		out[i] = C.ottla_partition_offset{
			topic: m.text(end.Topic), partition: C.int32_t(end.Partition.Partition), offset: C.int64_t(end.Offset),
		}
	}
	return array
}

func (m *memory) properties(list []Property) *C.ottla_property {
	array := (*C.ottla_property)(m.array(len(list), unsafe.Sizeof(C.ottla_property{})))
	out := unsafe.Slice(array, len(list))
	for i, p := range list {
		value := m.secret(p.Value)
		if value == nil {
			// An empty value is one: it is not left out.
			value = m.text("")
		}
		out[i] = C.ottla_property{name: m.text(p.Name), value: value}
	}
	return array
}

// forget overwrites the secrets.
func (m memory) forget() {
	for _, b := range m {
		clear(unsafe.Slice((*byte)(b.at), b.secret))
	}
}

func (m memory) free() {
	m.forget()
	for _, b := range m {
		C.free(b.at)
	}
}
