package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

// be is this program again, as one of the processes that a run needs: a role and its flags.
func be(role string, args []string) error {
	f := flag.NewFlagSet(role, flag.ContinueOnError)
	socket := f.String("socket", "", "the socket to serve or to call; for a holder, none: it holds nothing")
	slots := f.Int64("slots", 1, "how many slots of the pool streams a holder holds")
	leases := f.Int("leases", 0, "how many leases of one slot of the pool seats a holder holds instead")
	sessions := f.Int("sessions", 1, "how many sessions a caller has")
	whole := f.Bool("whole", false, "a caller over HTTP times the release, too")
	path := f.String("file", "", "the file that a writer writes")
	kib := f.Int("kib", 16, "how many KiB a writer writes at a time; a whole part of 4 MiB")
	query := f.String("query", "", "the query with which a lister lists the leases")
	uid := f.Int("uid", 0, "the user whom a lister becomes")
	calm := f.Bool("calm", false, "a caller collects its garbage between slices alone")
	if err := f.Parse(args); err != nil {
		return err
	}
	switch role {
	case "bare":
		return serveBare(*socket)
	case "canned":
		return serveCanned(*socket, answerCanned)
	case "canned-direct":
		return serveCanned(*socket, answerDirect)
	case "caller":
		return caller(*socket, *sessions, *calm, os.Stdin, os.Stdout)
	case "http-caller":
		return httpCaller(*socket, *whole, os.Stdin, os.Stdout)
	case "relay-caller":
		return relayCaller(*socket, os.Stdin, os.Stdout)
	case "lister":
		return lister(*socket, *query, *uid, os.Stdin, os.Stdout)
	case "writer":
		return write(*path, *kib)
	case "holder":
		if err := holder(*socket, *slots, *leases, os.Stdout); err != nil {
			return err
		}
		select {}
	}
	return fmt.Errorf("there is no role %q", role)
}

// asRole is the environment variable that has a test's binary be the bench.
const asRole = "USHER_BENCH_ROLE"

// self returns the command of this program again in a role.
func self(ctx context.Context, role string, args ...string) (*exec.Cmd, error) {
	me, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, me, append([]string{"-be", role}, args...)...)
	cmd.Env, cmd.Stderr = append(os.Environ(), asRole+"=1"), os.Stderr
	return cmd, nil
}

// startServer starts this program as a server, and returns once ready says that it serves.
func startServer(ctx context.Context, role, socket string, ready func() bool) (cmd *exec.Cmd, err error) {
	cmd, err = self(ctx, role, "-socket", socket)
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return nil, err
	}
	for begin := time.Now(); !ready(); time.Sleep(time.Millisecond) {
		if time.Since(begin) > 10*time.Second {
			end(cmd)
			return nil, errors.New(strings.Join([]string{role, "on", socket, "does not answer"}, " "))
		}
	}
	return cmd, nil
}

// end kills a process and waits for its end.
func end(cmd *exec.Cmd) {
	if cmd != nil && cmd.Process != nil {
		cmd.Process.Kill()
		cmd.Wait()
	}
}
