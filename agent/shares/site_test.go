package shares

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/usher-agent/usher/agent/bubble"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
	"github.com/usher-agent/usher/plugin/usher/online"
	"github.com/usher-agent/usher/plugin/usher/registry"
)

// server is the true site server, called without a network.
type server struct {
	t testing.TB
	*registry.Registry
	signer *issue.Signer
	began  time.Time

	mu   sync.Mutex
	lost func() bool // whether an answer is lost; nil: none
}

func openServer(t testing.TB, ttl time.Duration) *server {
	t.Helper()
	private, _, err := issue.MakeKey(t.TempDir(), "v1", "")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, began: time.Now()}
	if s.signer, err = issue.LoadSigner(private, ""); err != nil {
		t.Fatal(err)
	}
	if s.Registry, err = registry.Open(registry.Config{Dir: t.TempDir(), Signer: s.signer}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := s.ServePools(ttl, func() time.Duration { return time.Since(s.began) + time.Hour }); err != nil {
		t.Fatal(err)
	}
	return s
}

// sign makes the licence L1 with so many seats of a site, a later issue than any before.
func (s *server) sign(seats int64) []byte {
	s.t.Helper()
	doc, err := s.signer.Sign(&usher.Claims{ID: "L1", Product: "acme", Issued: time.Now().Unix(),
		Pools: map[string]usher.Pool{"seats": {Max: &seats}}})
	if err != nil {
		s.t.Fatal(err)
	}
	return doc
}

// RoundTrip answers a request as the server does over HTTP.
func (s *server) RoundTrip(r *http.Request) (*http.Response, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	q := httptest.NewRequest(r.Method, r.URL.String(), bytes.NewReader(b)).WithContext(r.Context())
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, q)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lost != nil && s.lost() {
		return nil, io.ErrUnexpectedEOF
	}
	return w.Result(), nil
}

// agents opens n agents with a key each, which have a licence.
func (s *server) agents(n int, doc []byte) (all []*tenant, use func(doc []byte)) {
	s.t.Helper()
	dir := s.t.TempDir()
	var clients []plugin.Budgeter
	for i := range n {
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			s.t.Fatal(err)
		}
		c, err := online.NewClient(online.Config{URL: "http://site.example", Key: key, HTTP: &http.Client{Transport: s},
			Anchors: func() []plugin.Anchor {
				return []plugin.Anchor{s.signer.Anchor}
			}})
		if err != nil {
			s.t.Fatal(err)
		}
		h := openTenantWithout(s.t, filepath.Join(dir, fmt.Sprint(i)), time.Now())
		all, clients = append(all, h), append(clients, c)
	}
	use = func(doc []byte) {
		s.t.Helper()
		l, p := usher.Format{}.Verify(doc, []plugin.Anchor{s.signer.Anchor})
		if p != nil {
			s.t.Fatal(p.Reason)
		}
		for i, h := range all {
			h.Set([]Licence{{License: l, Document: doc, Budgeter: clients[i]}})
		}
	}
	use(doc)
	return all, use
}

func (h *tenant) budget() int64 {
	budgets, _ := h.Budgets()
	return int64(budgets[seats])
}

// A site's limit goes from 12 to 3 while three agents have all twelve slots and are busy. After two block times no more
// than three of the leases that were granted since are held at one time, though answers are lost; the agents agree on
// how many each has, and go on to grant them.
func TestSiteLimitShrinks(t *testing.T) {
	for _, c := range []struct {
		name string
		lost float64
	}{{"all answers come", 0}, {"answers are lost", 0.2}} {
		t.Run(c.name, func(t *testing.T) {
			bubble.Test(t, func(t *testing.T) {
				const ttl = 12 * time.Second
				s := openServer(t, ttl)
				all, use := s.agents(3, s.sign(12))
				for _, h := range all {
					h.want(4)
				}
				time.Sleep(20 * time.Second)
				for _, h := range all {
					h.has(4, 4)
				}
				random := rand.New(rand.NewPCG(1, 2))
				s.mu.Lock()
				answers := rand.New(rand.NewPCG(3, 4)) // of the server's calls, under its lock
				s.lost = func() bool { return answers.Float64() < c.lost }
				s.mu.Unlock()
				small := s.sign(3)
				if _, err := s.Admit(small); err != nil {
					t.Fatal(err)
				}
				use(small)
				shrunk, granted := time.Now(), int64(0)
				fresh := map[*tenant]int64{}
				for time.Since(shrunk) < 7*ttl {
					time.Sleep(200 * time.Millisecond)
					synctest.Wait()
					var held, budgets int64
					for _, h := range all {
						// A holder leaves, and others always wait. The oldest leave first.
						before := h.demand("").InUse
						if before > 0 && random.IntN(4) == 0 {
							h.release(1)
							before--
							fresh[h] = min(fresh[h], before)
						}
						if d := h.demand(""); d.Waiting < 3 {
							h.want(3 - d.Waiting)
						}
						synctest.Wait()
						if n := h.demand("").InUse - before; n > 0 && time.Since(shrunk) > 2*ttl {
							fresh[h] += n
							granted += n
						}
						held, budgets = held+fresh[h], budgets+h.budget()
					}
					if time.Since(shrunk) > 2*ttl && (held > 3 || budgets > 3) {
						t.Fatalf(
							"%v after the limit became 3: %d leases are held that were granted since, and agents may "+
								"hand out %d", time.Since(shrunk), held, budgets)
					}
				}
				if granted < 5 {
					t.Errorf("only %d leases were granted after the new limit was in force", granted)
				}
			})
		})
	}
}
