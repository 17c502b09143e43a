package capi

/*
#include <stdlib.h>
#include "library.h"
*/
import "C"

import "unsafe"

// memory is C's, for arrays and texts that a call reads: Go may not lend memory that holds pointers to its own.
type memory []unsafe.Pointer

func (m *memory) text(s string) *C.char {
	t := C.CString(s)
	*m = append(*m, unsafe.Pointer(t))
	return t
}

// array has room for n things of a size, and is nil for none.
func (m *memory) array(n int, size uintptr) unsafe.Pointer {
	if n == 0 {
		return nil
	}
	array := C.malloc(C.size_t(n) * C.size_t(size))
	*m = append(*m, array)
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

func (m memory) free() {
	for _, p := range m {
		C.free(p)
	}
}
