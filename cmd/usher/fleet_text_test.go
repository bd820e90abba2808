package main

import (
	"testing"

	"github.com/usher-agent/usher/client/wire"
)

func TestSizeOfEtcd(t *testing.T) {
	for want, m := range map[string]wire.FleetSize{
		"its database has 20 KiB":                                {Bytes: 20 << 10},
		"its database has 21.5 MiB of 64 MiB, 33 % of its quota": {Bytes: 43 << 19, QuotaBytes: 64 << 20},
		"its database has 4.0 MiB; it is out of quota (NOSPACE), and takes no writes": {
			Bytes: 4 << 20, NoSpace: true},
	} {
		if got := sizeText(m); got != want {
			t.Errorf("%+v: %q, want %q", m, got, want)
		}
	}
}
