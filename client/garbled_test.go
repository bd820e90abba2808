package client_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
)

// garbled are answers that no agent gives; %d is the call's id. The Python client reads them too.
var garbled = []string{
	`{"jsonrpc":"2.0","id":%d}`,
	`{"jsonrpc":"2.0","id":%d,"result":null}`,
	`{"jsonrpc":"2.0","id":%d,"result":[]}`,
	`{"jsonrpc":"2.0","id":%d,"result":"a text"}`,
	`{"jsonrpc":"2.0","id":%d,"result":7}`,
	`{"jsonrpc":"2.0","id":%d,"result":{"id":7,"pools":7,"state":7,"name":7}}`,
	`{"jsonrpc":"2.0","id":%d,"result":{"id":"","pools":{},"state":[],"name":{}}}`,
	`{"jsonrpc":"2.0","id":%d,"result":{`,
	`{"jsonrpc":"2.0","id":%d,"error":{}}`,
	`{"jsonrpc":"2.0","id":%d,"error":{"message":"no","data":{}}}`,
	`{"jsonrpc":"2.0","id":%d,"error":"no"}`,
	`{"jsonrpc":"2.0","id":%d,"error":{"message":7}}`,
	`[]`, `null`, `7`, `"a text"`, `{`, "\x00\xff", ``,
}

// An answer that cannot be read is an error with a code, and never a lease, a licence or an empty list of pools.
func TestGarbledAnswers(t *testing.T) {
	for _, answer := range garbled {
		t.Run(answer, func(t *testing.T) {
			f := startFake(t)
			s := f.open(t)
			lease, err := s.Acquire(t.Context(), client.Slots("streams", 1))
			if err != nil {
				t.Fatal(err)
			}
			f.set(func() { f.garbled = answer + " " })
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			good := func(what string, err error) {
				t.Helper()
				if e := (*client.Error)(nil); !errors.Is(err, context.DeadlineExceeded) && (!errors.As(err, &e) ||
					e.Code == "" || e.Detail == "") {
					t.Errorf("%s: %v", what, err)
				}
			}
			other, err := s.Acquire(ctx, client.Slots("streams", 1))
			good("acquire", err)
			if other != nil {
				t.Errorf("acquire returned %+v", other.Info())
			}
			_, err = s.Pools(ctx)
			good("pools", err)
			_, err = s.Feature(ctx, "none")
			if err != nil {
				good("feature", err)
			}
			f.set(func() { f.garbled = "" })
			lease.Close()
			// An acquire that is read late, on a connection that is broken by then, is the agent's to undo.
			eventually(t, func() (bool, string) {
				f.mu.Lock()
				defer f.mu.Unlock()
				_, held := f.leases[lease.ID()]
				return !held, fmt.Sprintf("the lease that was closed is held: %v", f.leases)
			})
		})
	}
}
