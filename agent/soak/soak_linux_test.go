package soak

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

var (
	kills  = flag.Int("soak.kills", 10, "how often the agent is killed")
	binary = flag.String("soak.usher", "", "the usher to prove; empty: it is built")
)

const (
	clients  = 16
	patience = 60 * time.Second // with events that should have come long ago
)

// guest is one client process.
type guest struct {
	i      int
	name   string
	cmd    *exec.Cmd
	in     io.WriteCloser
	paused chan struct{}
	heard  chan struct{} // closed at the end of its story
}

// soak is a house: an agent, its clients, and their history.
type soak struct {
	*client.Client
	t      *testing.T
	dir    string
	bin    string
	agent  *exec.Cmd
	guests []*guest
	born   int
	order  string
	history
	killed int // clients
}

func (s *soak) path(name string) string { return filepath.Join(s.dir, name) }

// until waits until a condition holds.
func (s *soak) until(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); <-time.After(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: not so after %s", what, patience)
		}
	}
}

func open(t *testing.T, limits map[string]int64, renders int64) *soak {
	t.Helper()
	base := ""
	if info, err := os.Stat("/dev/shm"); err == nil && info.IsDir() {
		base = "/dev/shm" // the disk is not under proof here
	}
	dir, err := os.MkdirTemp(base, "soak") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the agent's folders are kept in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	s := &soak{t: t, dir: dir, bin: *binary, Client: client.New(filepath.Join(dir, "s")),
		history: history{Limits: limits, byOp: map[string]*op{}}}
	if s.bin == "" {
		s.bin = s.path("usher")
		if out, err := exec.Command("go", "build", "-race", "-ldflags", "-s -w", "-o", s.bin,
			"../../cmd/usher").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	private, public, err := issue.MakeKey(dir, "k1", "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := issue.LoadSigner(private, "")
	if err != nil {
		t.Fatal(err)
	}
	claims := &usher.Claims{ID: "soak", Product: "acme", Issued: time.Now().Unix() - 10, Pools: map[string]usher.Pool{},
		Meters: map[string]usher.Meter{"renders": {Max: &renders, Scope: "host"}}}
	for name, n := range limits {
		claims.Pools[name] = usher.Pool{Max: &n, Scope: "host"}
	}
	doc, err := signer.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf(
		"product: acme\nsocket: {path: %s}\nstate: {dir: %s, runtime_dir: %s}\nlicense:\n  path: %s\n  trust:\n    - "+
			"kid: k1\n      key_file: %s\n",
		s.path("s"), s.path("state"), s.path("run"), s.path("l"), public)
	for _, err := range []error{os.Mkdir(s.path("l"), 0o755), os.WriteFile(s.path("l/a.lic"), doc, 0o644),
		os.WriteFile(s.path("usher.yaml"), []byte(config), 0o600)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	s.start()
	t.Cleanup(s.end)
	return s
}

// start starts the agent and returns when it has a verdict.
func (s *soak) start() {
	s.t.Helper()
	s.agent = exec.Command(s.bin, "agent", "--config", s.path("usher.yaml"), "--log-level", "error")
	// a race ends the agent, and nobody gets anything any more
	s.agent.Env = append(os.Environ(), "GORACE=halt_on_error=1")
	s.agent.Stderr = os.Stderr
	if err := s.agent.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.until("the agent is ready", func() bool {
		l, err := s.License(context.Background())
		return err == nil && l.State == "valid"
	})
	s.list()
}

func (s *soak) kill() {
	s.agent.Process.Signal(syscall.SIGKILL)
	s.agent.Wait()
	s.mu.Lock()
	s.Kills = append(s.Kills, now())
	s.mu.Unlock()
}

func (s *soak) end() {
	for _, g := range s.guests {
		g.cmd.Process.Kill()
		<-g.heard
		g.cmd.Wait()
	}
	s.kill()
	s.Close()
}

// admit starts the i-th client.
func (s *soak) admit(i int) {
	s.t.Helper()
	s.born++
	g := &guest{i: i, name: fmt.Sprintf("%d.%d", i, s.born), paused: make(chan struct{}, 1), heard: make(chan struct{})}
	g.cmd = exec.Command(os.Args[0])
	g.cmd.Env = append(os.Environ(), "USHER_SOAK_CLIENT="+g.name, "USHER_SOCKET="+s.Socket())
	if i%3 == 0 {
		g.cmd.Env = append(g.cmd.Env, "USHER_SOAK_STEADY=1")
	}
	g.cmd.Stderr = os.Stderr
	var err error
	if g.in, err = g.cmd.StdinPipe(); err != nil {
		s.t.Fatal(err)
	}
	out, err := g.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := g.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		defer close(g.heard)
		for in := bufio.NewScanner(out); in.Scan(); {
			var r record
			if json.Unmarshal(in.Bytes(), &r) != nil {
				return // half a line: the client was killed
			}
			if r.Event == "paused" {
				select {
				case g.paused <- struct{}{}:
				default:
				}
				continue
			}
			s.add(i, r)
		}
	}()
	s.guests[i] = g
	s.tell(g, s.order)
}

func (s *soak) tell(g *guest, order string) {
	if _, err := io.WriteString(g.in, order+"\n"); err != nil {
		s.t.Errorf("client %s: %v", g.name, err)
	}
}

// murder kills a client and returns when it was last alive.
func (s *soak) murder(g *guest) (at int64) {
	at = now()
	g.cmd.Process.Kill()
	<-g.heard
	g.cmd.Wait()
	return at
}

// bury returns when a dead client holds no lease any more: those of its life end by themselves, and bury forces the ttl
// ones.
func (s *soak) bury(g *guest, at int64) {
	s.t.Helper()
	s.until("a dead client's leases are gone", func() bool {
		return s.clear(func(name string) bool { return name == g.name })
	})
	gone := now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.killed++
	for _, o := range s.Ops {
		if strings.HasPrefix(o.Op, g.name+"/") {
			o.Killed, o.Gone = at, gone
		}
	}
}

// clear forces the ttl leases of dead clients, and says whether these hold nothing.
func (s *soak) clear(dead func(client string) bool) bool {
	all, err := s.Leases(context.Background(), "")
	if err != nil {
		return false
	}
	clear := true
	for _, l := range all {
		if l.Holder == nil || !dead(l.Holder.Labels["client"]) {
			continue
		}
		clear = false
		if l.Lifetime == "ttl" {
			s.Release(context.Background(), l.ID, true) // it is asked for again
		}
	}
	return clear
}

// list asks as admin which leases are held.
func (s *soak) list() {
	s.t.Helper()
	l := listing{From: now(), Held: map[string]string{}}
	all, err := s.Leases(context.Background(), "")
	if err != nil {
		s.t.Fatal(err)
	}
	for _, one := range all {
		l.Held[one.ID] = ""
		if one.Holder != nil {
			l.Held[one.ID] = one.Holder.Labels["op"]
		}
	}
	l.To = now()
	s.mu.Lock()
	s.Listings = append(s.Listings, l)
	s.mu.Unlock()
}

// quiet makes every client give its leases back, and begins a new segment.
func (s *soak) quiet() {
	s.t.Helper()
	for _, g := range s.guests {
		s.tell(g, "pause")
	}
	deadline := time.After(patience)
	for _, g := range s.guests {
		select {
		case <-g.paused:
		case <-g.heard:
			s.t.Fatalf("client %s has ended by itself", g.name)
		case <-deadline:
			s.t.Fatalf("client %s is not quiet after %s", g.name, patience)
		}
	}
	alive := func(name string) bool {
		return slices.ContainsFunc(s.guests, func(g *guest) bool { return g.name == name })
	}
	s.until("nothing is held", func() bool {
		s.clear(func(name string) bool { return !alive(name) })
		pools, err := s.Pools(context.Background())
		return err == nil && !slices.ContainsFunc(pools, func(p wire.Pool) bool {
			return p.Kind == "pool" && p.InUse > 0
		})
	})
	s.mu.Lock()
	s.segment++
	s.inSeg = 0
	waits := s.segment%3 == 1
	s.mu.Unlock()
	s.order = "go"
	if waits {
		s.order = "go waits"
	}
}

func (s *soak) goOn() {
	for _, g := range s.guests {
		s.tell(g, s.order)
	}
}

// Sixteen clients hammer an agent; both are killed at random. Then the history is checked.
func TestSoak(t *testing.T) {
	limits := map[string]int64{"streams": 12, "seats": 9}
	renders := int64(40 * *kills)
	s := open(t, limits, renders)
	s.guests = make([]*guest, clients)
	s.order = "go"
	began, done := time.Now(), false
	t.Cleanup(func() {
		if !done { // it was given up: the history so far tells why
			s.check(renders, time.Since(began))
		}
	})
	for i := range clients {
		s.admit(i)
	}
	count := func() (grants, inSegment int) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.grants, s.inSeg
	}
	for round := range *kills {
		before, _ := count()
		s.until("clients are granted slots", func() bool { n, _ := count(); return n >= before+60 })
		victim := rand.IntN(clients)
		g := s.guests[victim]
		switch rand.IntN(3) {
		case 0: // a client alone, and then the agent
			s.bury(g, s.murder(g))
			s.kill()
			s.start()
		case 1: // the client while there is no agent; the next agent finds it dead
			s.kill()
			at := s.murder(g)
			s.start()
			s.bury(g, at)
		default:
			s.kill()
			s.start()
			s.bury(g, s.murder(g))
		}
		s.list()
		s.admit(victim)
		if _, n := count(); n > 4000 || round%3 == 2 {
			s.quiet()
			if round < *kills-1 {
				s.goOn()
			}
		}
	}
	s.quiet()
	done = true
	s.check(renders, time.Since(began))
}

func (s *soak) check(renders int64, took time.Duration) {
	s.t.Helper()
	meter, err := s.Pool(context.Background(), "renders")
	if err != nil {
		s.t.Error(err)
		meter = &wire.Pool{}
	}
	drawn := meter.InUse
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := os.Getenv("ARTIFACTS")
	if dir == "" {
		if dir, err = os.MkdirTemp("", "usher-soak"); err != nil {
			s.t.Fatal(err)
		}
	}
	figures := map[string]int{}
	acknowledged, unknown := int64(0), int64(0)
	var falsely []string
	for _, o := range s.Ops {
		result := o.Result
		if o.Done == 0 {
			result = "unknown"
		}
		figures[o.Kind+" "+result]++
		if n := o.Items["renders"]; o.Kind == "draw" && result == "granted" {
			acknowledged += n
		} else if o.Kind == "draw" && result == "unknown" {
			unknown += n
			// draws never come back: there was room before, too
		} else if o.Kind == "draw" && err == nil && drawn+n <= renders {
			falsely = append(falsely,
				fmt.Sprintf("%s: %d draws were denied, and only %d of %d are drawn", o.Op, n, drawn, renders))
		}
	}
	linear, checked, excused := s.linearize(dir)
	sweep := append(s.sweep(), falsely...)
	if err == nil && (drawn < acknowledged || drawn > acknowledged+unknown || drawn > renders) {
		sweep = append(sweep, fmt.Sprintf("%d is drawn; %d acknowledged, %d perhaps, and the limit is %d", drawn,
			acknowledged, unknown, renders))
	}
	for what, wrong := range map[string][]string{"porcupine": linear, "sweep": sweep} {
		if len(wrong) > 20 {
			wrong = append(wrong[:20:20], fmt.Sprintf("and %d more", len(wrong)-20))
		}
		for _, w := range wrong {
			s.t.Errorf("%s: %s", what, w)
		}
	}
	s.t.Logf(
		"%d agent kills, %d client kills, %d calls, %d segments in %s: %v; porcupine checked %d operations, %d "+
			"denials left to the sweep; %d listings found %d leases that were surely held; %d of %d drawn (%d "+
			"acknowledged, %d perhaps)",
		*kills, s.killed, len(s.Ops), s.segment, took.Round(time.Second), figures, checked, excused, len(s.Listings),
		s.found, drawn, renders, acknowledged, unknown)
	if s.t.Failed() {
		s.keep(s.t, dir)
	} else if os.Getenv("ARTIFACTS") == "" {
		os.RemoveAll(dir)
	}
}
