package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/usher-agent/usher/client/wire"
)

// server is the tour's upstream.
type server struct {
	cmd *exec.Cmd
	log bytes.Buffer
}

// freeAddress returns an unused loopback address.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("demo: %w", err)
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// serve starts the vendor's server and waits until it answers.
func (t *tour) serve() (*server, error) {
	fprintf(t.out, "  $ usher upstream --key keys/demo-key.key --data upstream --listen %s &\n", t.upstream)
	s := &server{}
	s.cmd = exec.CommandContext(t.ctx, t.exe, "upstream", "--key", "keys/demo-key.key", "--data", "upstream",
		"--listen", t.upstream)
	s.cmd.Dir, s.cmd.Env, s.cmd.Stderr = t.dir, cleanEnvironment(), &s.log
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		c, err := (&net.Dialer{}).DialContext(t.ctx, "tcp", t.upstream)
		if err == nil {
			return s, c.Close()
		}
		select {
		case <-t.ctx.Done():
			return s, t.ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			s.kill()
			return nil, fmt.Errorf("demo: the upstream does not answer:\n%s", s.log.String())
		}
	}
}

// kill ends the server as a crash would.
func (s *server) kill() {
	s.cmd.Process.Signal(syscall.SIGKILL)
	s.cmd.Wait()
}

// online tells the story of a licence with an upstream, with periods of seconds instead of days.
func (t *tour) online() (err error) {
	t.say("The vendor runs a server, and sells a licence that demands heartbeats",
		"Every 3 s here, with 30 s of grace; days and weeks in practice.")
	s, err := t.serve()
	if err != nil {
		return err
	}
	defer func() { s.kill() }()
	if _, err := t.usher(0, "vendor", "sign", "--key", "keys/demo-key.key", "--product", "demo", "--licensee", "You",
		"--id", "demo-3", "--limit", "streams=5", "--expires", "30d",
		"--bind", "request.json", "--activation", "0", "--heartbeat", "3s", "--heartbeat-grace", "30s", "--check-in",
		"1d", "--out", "demo-3.lic"); err != nil {
		return err
	}
	if err := t.drop("demo-3.lic", "demo.lic", inForceOf("demo-3")); err != nil {
		return err
	}
	if _, err := t.usher(0, "upstream", "list", "--hosts", "--data", "upstream"); err != nil {
		return err
	}
	first, err := t.until(func(l *wire.License) bool { return l.Heartbeat != nil && l.Heartbeat.Last != nil })
	if err != nil {
		return err
	}
	if _, err := t.until(func(l *wire.License) bool {
		return l.Heartbeat.Last.After(*first.Heartbeat.Last)
	}); err != nil {
		return err
	}
	fprintln(t.out, "    the host is activated, and a heartbeat goes out every third of the period")
	if err := t.outage(s); err != nil {
		return err
	}
	t.say("The server is back", "One good answer makes the licence valid again.")
	began := time.Now()
	if s, err = t.serve(); err != nil {
		return err
	}
	if _, err := t.until(func(l *wire.License) bool { return l.Code == "VALID" }); err != nil {
		return err
	}
	fprintf(t.out, "    VALID again after %.1f s\n", time.Since(began).Seconds())
	t.say("The vendor renews the licence, and the agent fetches it",
		"Nobody touches the host: the renewed licence comes with the next check-in, which the tour does not wait for.")
	if _, err := t.usher(0, "upstream", "renew", "demo-3", "--expires", "1y", "--data", "upstream"); err != nil {
		return err
	}
	if _, err := t.usher(0, "upstream", "call"); err != nil {
		return err
	}
	l, err := t.until(func(l *wire.License) bool {
		return slices.ContainsFunc(l.Licenses, func(d wire.Document) bool {
			return d.ID == "demo-3" && d.InForce && d.ExpiresAt != nil && time.Until(*d.ExpiresAt) > 100*24*time.Hour
		})
	})
	if err != nil {
		return err
	}
	fprintf(t.out, "    in force: %s\n", l.Reason)
	t.say("The vendor revokes it", "The agent learns of it with its next heartbeat, and grants nothing new.")
	if _, err := t.usher(0, "upstream", "revoke", "demo-3", "--reason", "the invoice was never paid", "--data",
		"upstream"); err != nil {
		return err
	}
	if _, err := t.until(func(l *wire.License) bool { return l.Code == "REVOKED" }); err != nil {
		return err
	}
	if _, err := t.usher(exitNotValid, "acquire", "--pool", "streams"); err != nil {
		return err
	}
	t.say("The customer pays, and gets a new licence", "")
	if err := t.sign("demo-4", "5", "demo-4.lic"); err != nil {
		return err
	}
	return t.drop("demo-4.lic", "demo.lic", inForceOf("demo-4"))
}

// outage kills the server and prints the remaining grace, while slots are still granted.
func (t *tour) outage(s *server) error {
	t.say("The server fails, and the licence stays valid",
		"The grace begins at the end of the period; slots are granted all the while.")
	fprintln(t.out, "  $ kill -9 %2")
	s.kill()
	l, err := t.until(func(l *wire.License) bool { return l.Code == "VALID_IN_GRACE" })
	if err != nil {
		return err
	}
	for range 3 {
		if l.GraceEndsAt == nil {
			return errors.New("demo: the licence is in grace without an end")
		}
		fprintf(t.out, "    %s: %.0f s of grace are left (%s)\n", l.Code, time.Until(*l.GraceEndsAt).Seconds(),
			l.Reason)
		select {
		case <-t.ctx.Done():
			return t.ctx.Err()
		case <-time.After(time.Second):
		}
		if l, err = t.agent.License(t.ctx); err != nil {
			return err
		}
	}
	id, err := t.usher(0, "acquire", "--pool", "streams", "--ttl", "10m")
	if err != nil {
		return err
	}
	return t.agent.Release(context.WithoutCancel(t.ctx), strings.TrimSpace(id), false)
}

// inForceOf returns the test that the licence with an id is in force.
func inForceOf(id string) func(*wire.License) bool {
	return func(l *wire.License) bool {
		return l.State == "valid" && slices.ContainsFunc(l.Licenses, func(d wire.Document) bool {
			return d.ID == id && d.InForce
		})
	}
}
