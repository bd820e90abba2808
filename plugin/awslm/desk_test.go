package awslm_test

import (
	"cmp"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/plugintest"
)

// counterOf is a dialect at a fake desk.
type counterOf struct {
	t    testing.TB
	desk *plugintest.Desk
	h    http.Handler
}

func newDesk(licenses ...*enforcer.License) *plugintest.Desk {
	d := plugintest.NewDesk(awslm.System, time.Now().UTC().Truncate(time.Second), licenses...)
	d.Sender, d.Signer = &enforcer.Caller{UID: 7}, agentKey
	return d
}

func counter(t testing.TB, licenses ...*enforcer.License) *counterOf {
	d := newDesk(licenses...)
	return &counterOf{t, d, awslm.Dialect{}.Handler(d)}
}

// restart makes the dialect anew, as after a crash.
func (c *counterOf) restart() { c.h = awslm.Dialect{}.Handler(c.desk) }

// post sends a body to an operation. It is false when the agent died of it.
func (c *counterOf) post(op, body string) (answer *httptest.ResponseRecorder, lives bool) {
	defer func() {
		if p := recover(); p != nil {
			if _, is := p.(plugintest.Died); !is {
				panic(p)
			}
			c.restart()
		}
	}()
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", awslm.ContentType)
	r.Header.Set(awslm.TargetHeader, awslm.TargetPrefix+op)
	answer = httptest.NewRecorder()
	c.h.ServeHTTP(answer, r)
	return answer, true
}

// call asks and decodes the answer into out, or returns the error code and what it says.
func (c *counterOf) call(op string, in, out any) *awslm.Fault {
	c.t.Helper()
	body, err := json.Marshal(in)
	if err != nil {
		c.t.Fatal(err)
	}
	w, lives := c.post(op, string(body))
	if !lives {
		return &awslm.Fault{Code: "died"}
	}
	if w.Header().Get("X-Amzn-RequestId") == "" || w.Header().Get("Content-Type") != awslm.ContentType {
		c.t.Errorf("%s: the headers are %v", op, w.Header())
	}
	if w.Code == http.StatusOK {
		if out != nil {
			if err := json.Unmarshal(w.Body.Bytes(), out); err != nil {
				c.t.Fatal(err)
			}
		}
		return nil
	}
	f := &awslm.Fault{}
	if err := json.Unmarshal(w.Body.Bytes(), f); err != nil || f.Code == "" || f.Message == "" {
		c.t.Fatalf("%s: %d %s", op, w.Code, w.Body)
	}
	want := cmp.Or(map[bool]int{true: 500}[f.Code == awslm.ErrServerInternal], 400)
	if w.Code != want || w.Header().Get("X-Amzn-ErrorType") != f.Code {
		c.t.Errorf("%s: status %d, %s, header %q", op, w.Code, f.Code, w.Header().Get("X-Amzn-ErrorType"))
	}
	if !awslm.Declared(op, f.Code) {
		c.t.Errorf("%s answers %s, which is not declared for it", op, f.Code)
	}
	return f
}

// good is call that must succeed.
func (c *counterOf) good(op string, in, out any) {
	c.t.Helper()
	if f := c.call(op, in, out); f != nil {
		c.t.Fatalf("%s %+v: %v", op, in, f)
	}
}

// bad is call that must be refused with a code, and words.
func (c *counterOf) bad(op string, in any, code string, says ...string) {
	c.t.Helper()
	f := c.call(op, in, nil)
	if f == nil || f.Code != code {
		c.t.Errorf("%s %+v: %v, and it must be refused with %s", op, in, f, code)
		return
	}
	for _, s := range says {
		if !strings.Contains(f.Message, s) {
			c.t.Errorf("%s: %q does not say %q", op, f.Message, s)
		}
	}
}

// used returns what is in use of a pool or meter.
func (c *counterOf) used(pool string) int64 { return c.desk.InUse(pool) }
