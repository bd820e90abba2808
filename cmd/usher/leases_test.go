package main

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"github.com/usher-agent/usher/client/wire"
)

func leasesOf(n int, failed error) (iter.Seq2[*wire.Lease, error], []wire.Lease) {
	all := []wire.Lease{}
	for i := range n {
		all = append(all, wire.Lease{ID: fmt.Sprint("lease-", i), Items: []wire.Item{{Pool: "<a>\x1b[2J", N: 1}},
			Holder: &wire.Holder{Labels: map[string]string{"a": "b"}}})
	}
	return func(yield func(*wire.Lease, error) bool) {
		for i := range all {
			if !yield(&all[i], nil) {
				return
			}
		}
		if failed != nil {
			yield(nil, failed)
		}
	}, all
}

// A list that is printed while it is read looks as one that is printed whole.
func TestLeasesArePrintedAsTheyCome(t *testing.T) {
	for _, n := range []int{0, 1, 3} {
		leases, all := leasesOf(n, nil)
		var got, want bytes.Buffer
		if err := (&cli{out: &got}).printLeasesJSON(leases); err != nil {
			t.Fatal(err)
		}
		if err := (&cli{out: &want}).printJSON(wire.Leases{Leases: all}); err != nil {
			t.Fatal(err)
		}
		if got.String() != want.String() {
			t.Errorf("%d leases:\n%s\nand whole:\n%s", n, &got, &want)
		}
	}
	for n, lines := range map[int]int{0: 1, 2: 3, 2*rowsTogether + 1: 2*rowsTogether + 2} {
		leases, _ := leasesOf(n, nil)
		var got bytes.Buffer
		if err := (&cli{out: &got}).printLeases(leases); err != nil || strings.Count(got.String(), "\n") != lines ||
			n > 0 && strings.Count(got.String(), "LIFETIME") != 1 {
			t.Errorf("%d leases: %d lines, %v", n, strings.Count(got.String(), "\n"), err)
		}
	}
	broke := errors.New("broke off")
	leases, _ := leasesOf(1, broke)
	if err := (&cli{out: new(bytes.Buffer)}).printLeasesJSON(leases); !errors.Is(err, broke) {
		t.Error("a list that broke off:", err)
	}
	leases, _ = leasesOf(1, broke)
	if err := (&cli{out: new(bytes.Buffer)}).printLeases(leases); !errors.Is(err, broke) {
		t.Error("a table that broke off:", err)
	}
}
