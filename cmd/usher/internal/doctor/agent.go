package doctor

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/usher-agent/usher/agent/api"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/enforcer"
)

// within returns a context that ends when an answer takes too long.
func (e *exam) within() (context.Context, context.CancelFunc) {
	return context.WithTimeout(e.ctx, e.Within)
}

// meet calls the agent, and says why it does not answer.
func (e *exam) meet() {
	socket := e.client.Socket()
	fi, err := os.Stat(socket)
	if err == nil && fi.Mode().Type() != fs.ModeSocket {
		return // it is looked at where the agent would make it
	}
	conn, err := (&net.Dialer{Timeout: e.Within}).DialContext(e.ctx, "unix", socket)
	if err == nil {
		e.pid = e.listening(conn)
		conn.Close()
		ctx, cancel := e.within()
		defer cancel()
		_, err = e.client.Health(ctx)
	}
	var said *client.Error
	switch {
	case err == nil:
		e.up = true
		e.ok("socket", "%s, mode %04o", socket, fi.Mode().Perm())
		e.said = e.license()
	case errors.Is(err, fs.ErrNotExist):
		e.away("there is no socket " + socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		e.bad("SOCKET_STALE", "agent", e.start()+"; it replaces the socket by itself",
			"the agent that made %s is gone, and nobody listens there%s", socket, e.lastWords())
	case errors.Is(err, fs.ErrPermission):
		e.bad("SOCKET_CLOSED", "socket", letIn(fi), "%s may not connect to %s%s", self(), socket, modeOf(fi))
	case errors.As(err, &said) && client.Code(said.Code) == client.ErrForbidden:
		e.up = true
		e.denied(self(), said)
	case e.ctx.Err() == nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)):
		if e.pid == 0 && e.Unit != nil {
			e.away("the service manager keeps " + socket + " open, and no agent answers there")
			return
		}
		who := "the agent"
		if e.pid > 0 {
			who = programOf(e.pid)
		}
		e.bad("AGENT_SILENT", "agent", "is it stopped (SIGSTOP), or out of descriptors? restart it: "+e.restart(),
			"%s takes calls on %s and does not answer within %s", who, socket, enforcer.Span(e.Within))
	default:
		e.away(fmt.Sprintf("no agent answers on %s: %v", socket, err))
	}
}

// listening returns the process of the agent on a socket; 0: it is not known. Whoever made the socket need not be the
// agent: the service manager may have made it, or keep it over a restart.
func (e *exam) listening(conn net.Conn) int {
	if e.cfg == nil {
		return peerOf(conn)
	}
	return holder(api.SocketLock(e.cfg.State.RuntimeDir, e.cfg.Socket.Path))
}

// license asks the agent for its licence; nil: it does not tell, and a finding says why.
func (e *exam) license() *wire.License {
	ctx, cancel := e.within()
	defer cancel()
	l, err := e.client.License(ctx)
	var said *client.Error
	switch {
	case errors.As(err, &said) && client.Code(said.Code) == client.ErrForbidden:
		e.denied(self(), said)
		return nil
	case err != nil:
		e.bad("AGENT_SILENT", "agent", e.restart(), "it does not tell its licence: %v", err)
		return nil
	}
	return l
}

// settled is within which the agent says of a new file that it is broken.
const settled = 2 * time.Second

// settle waits until an agent that has just started, or just been given a file, says what it thinks of it.
func (e *exam) settle() {
	if e.cfg == nil {
		return
	}
	for until := time.Now().Add(settled); time.Now().Before(until) && e.ctx.Err() == nil; {
		if e.said.Code != string(enforcer.NotFound) || len(e.said.Licenses) > 0 || len(e.licenceFiles()) == 0 {
			return
		}
		select {
		case <-e.ctx.Done():
		case <-time.After(settled / 20):
		}
		if l := e.license(); l != nil {
			e.said = l
		}
	}
}

// environment returns the variables of the agent: of the unit, of the running one, or else of this process.
func (e *exam) environment() []string {
	if e.Unit != nil {
		return e.Unit.Env
	}
	if e.pid > 0 {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", e.pid)); err == nil {
			return strings.Split(string(b), "\x00")
		}
	}
	return os.Environ()
}

// denied says that the rules do not let a caller in.
func (e *exam) denied(who account, said *client.Error) {
	e.bad("CALLER_DENIED", "caller", "add a rule for it to socket.allow, and reload",
		"the rules of socket.allow do not let %s in: %s", who, said.Detail)
}

// away reports that there is no agent.
func (e *exam) away(detail string) {
	e.bad("AGENT_AWAY", "agent", e.start(), "%s%s", detail, e.lastWords())
}

// start is the command that starts the agent.
func (e *exam) start() string {
	switch {
	case e.Unit != nil:
		return "start it: `systemctl start " + e.Unit.Service + "`"
	case e.File != "":
		return "start it: `usher agent --config " + e.File + "`"
	case e.Template != "":
		return "write /etc/usher/NAME.yaml for an instance, and start it: `systemctl enable --now " +
			"usher@NAME.service`; or name another agent with --socket, --instance or USHER_SOCKET"
	}
	return "start it: `usher agent`, or name another with --socket, --instance or USHER_SOCKET"
}

func (e *exam) restart() string {
	if e.Unit != nil {
		return "systemctl restart " + e.Unit.Service
	}
	return "end it with SIGTERM, and start it again"
}

// letIn is how a user gets to connect to a socket.
func letIn(fi fs.FileInfo) string {
	if fi == nil {
		return "every folder on its path must let the user in"
	}
	group := "the socket's group"
	switch gid := groupOf(fi); {
	case gid == 0:
		return "set socket.group to a group of that user"
	case gid > 0:
		group = fmt.Sprintf("the group %s", groupName(gid))
	}
	return "add the user to " + group + " (it counts from its next login on), or set socket.group to another"
}

// modeOf describes the permissions of a socket.
func modeOf(fi fs.FileInfo) string {
	if fi == nil {
		return ""
	}
	return fmt.Sprintf(", which is %04o of %s, group %s", fi.Mode().Perm(), nameOf(fi), groupName(groupOf(fi)))
}

// product tries the socket as the product's user, in all that the kernel and the rules say.
func (e *exam) product() {
	if e.As == "" || !e.up {
		return
	}
	who, err := userOf(e.As)
	if err != nil {
		e.bad("CALLER_DENIED", "caller", "create the user, or name another with --as", "%v", err)
		return
	}
	socket := e.client.Socket()
	fi, _ := os.Stat(socket) // what it is does not matter here
	var answer string
	failed := who.do(func() { answer, err = ask(socket, e.Within) })
	switch {
	case failed != nil:
		e.notLooked("caller", failed)
	case errors.Is(err, fs.ErrPermission):
		e.bad("SOCKET_CLOSED", "socket", letIn(fi), "%s may not connect to %s%s", who, socket, modeOf(fi))
	case err != nil:
		e.bad("SOCKET_CLOSED", "socket", "", "%s: %s: %v", who, socket, err)
	case strings.HasPrefix(answer, "HTTP/1.1 403"), strings.HasPrefix(answer, "HTTP/1.0 403"):
		e.bad("CALLER_DENIED", "caller", "add a rule for it to socket.allow, and reload",
			"the rules of socket.allow do not let %s in", who)
	default:
		e.ok("caller", "%s may call", who)
	}
}

// ask asks for the pools on a connection of this thread's own, and returns the first line of the answer.
func ask(socket string, within time.Duration) (string, error) {
	conn, err := net.DialTimeout("unix", socket, within)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(within)); err != nil {
		return "", err
	}
	if _, err := conn.Write([]byte("GET /v1/pools HTTP/1.1\r\nHost: usher\r\nConnection: close\r\n\r\n")); err != nil {
		return "", err
	}
	b := make([]byte, 64)
	n, err := conn.Read(b)
	line, _, _ := strings.Cut(string(b[:n]), "\r\n")
	return line, err
}

// running asks the agent how it is.
func (e *exam) running() {
	ctx, cancel := e.within()
	defer cancel()
	h, err := e.client.Health(ctx)
	if err != nil {
		return // it is said
	}
	if len(h.Unready) == 0 {
		e.ok("agent", "%s, version %s, product %s, keys from %s", h.Status, h.Version, dash(h.Product), h.Anchors)
	}
	for _, u := range h.Unready {
		e.bad("AGENT_UNREADY", "vital part "+u.Part, "the agent is not ready until it is well; its log says more",
			"%s (since %s)", strings.TrimSuffix(u.Reason, "."), u.Since.Format(time.RFC3339))
	}
	if h.Status == "draining" {
		e.warn("DRAINING", "agent", "`usher drain --undo` ends that", "it was told to grant nothing new (drain)")
	}
	if h.Version != e.Version {
		e.warn("VERSION_DIFFERS", "version", "restart the agent after an update",
			"the agent is version %s, and this command %s", h.Version, e.Version)
	}
	for _, s := range h.State {
		e.bad("STATE_CHANGED", "state",
			"find out who changed the agent's folders; then stop the agent and run `"+e.repair()+
				"`, which accepts the present state", "%s is %s (found %s): %s", s.File, s.Fault,
			s.Found.Format(time.RFC3339), s.Effect)
	}
	if e.said == nil {
		return
	}
	if k, err := e.client.Clock(ctx); err == nil {
		e.licenceTime(k)
	}
	e.settle()
	e.licence(ofWire(e.said))
	e.fleetOf()
	e.pools(ctx)
	e.listeners(ctx, h)
	switch settings, err := e.client.Config(ctx); {
	case err == nil:
		e.differing(settings)
	case errors.Is(err, client.ErrForbidden):
		e.notLooked("settings", errors.New("only admins may read the agent's settings"))
	}
}

// pools says which pools are full, and of which the agent has not its share.
func (e *exam) pools(ctx context.Context) {
	pools, err := e.client.Pools(ctx)
	if err != nil {
		return
	}
	for _, p := range pools {
		name := "pool " + p.Name
		shared := p.Scope == "site" && p.Budget != nil && (p.Limit == nil || *p.Budget < *p.Limit)
		switch {
		case shared && *p.Budget == 0 && e.has("POOL_SHARE"): // the verdict says it
		case shared && *p.Budget == 0 && p.Kind == "meter":
			e.ok("meter "+p.Name, "this agent takes draws of the site's %s when it is asked for some", limit(p.Limit))
		case shared && *p.Budget == 0 && e.inFleet:
			e.ok(name, "this agent has none of the site's %s slots; `usher fleet status` shows which host has them",
				limit(p.Limit))
		case shared && *p.Budget == 0:
			e.warn("POOL_SHARE", name, "slots come from the site server, the fleet or the upstream; is it reachable?",
				"this agent has no share of the site's %s slots", limit(p.Limit))
		case shared && p.Kind == "meter":
			e.ok("meter "+p.Name, "%d of the %d draws are drawn that this agent has taken of the site's %s; it takes "+
				"more when it is asked for some", p.InUse, *p.Budget, limit(p.Limit))
		case p.Kind == "meter" && p.Budget != nil && *p.Budget > 0 && p.InUse >= *p.Budget:
			e.warn("POOL_FULL", "meter "+p.Name, "ask for more draws, or wait until the meter starts again",
				"all %d draws are drawn", *p.Budget)
		case p.Budget != nil && *p.Budget > 0 && p.InUse >= *p.Budget:
			e.warn("POOL_FULL", name, "`usher leases` lists the holders", "all %d slots are in use", *p.Budget)
		case shared:
			e.ok(name, "this agent may hand out %d of the site's %s slots", *p.Budget, limit(p.Limit))
		}
	}
}

// listeners lists the listeners of dialects, and the keys that sign their answers.
func (e *exam) listeners(ctx context.Context, h *wire.Health) {
	if len(h.Listeners) == 0 {
		return
	}
	signs := map[string]string{}
	if keys, err := e.client.Keys(ctx); err == nil {
		for _, k := range keys.Keys {
			if x, err := base64.RawURLEncoding.DecodeString(k.X); err == nil {
				signs[k.Dialect] = hex.EncodeToString(x)
			}
		}
	}
	for _, l := range h.Listeners {
		e.ok("listener", "%s speaks %s; the Ed25519 key of its answers is %s", l.Address, l.Dialect,
			dash(signs[l.Dialect]))
	}
}

// lastWords is what the agent has said last, where that can be read.
func (e *exam) lastWords() string {
	if e.Unit == nil {
		return ""
	}
	var lines string
	if e.Unit.Log != "" {
		b, err := os.ReadFile(e.Unit.Log)
		if err != nil {
			return ""
		}
		lines = string(b[max(0, len(b)-64<<10):])
	} else {
		ctx, cancel := e.within()
		defer cancel()
		out, err := exec.CommandContext(ctx, "journalctl", "--unit", e.Unit.Service, "--lines=50", "--output=cat",
			"--no-pager", "--quiet").Output()
		if err != nil {
			return ""
		}
		lines = string(out)
	}
	last := ""
	for line := range strings.Lines(lines) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "error: ") || strings.Contains(line, "level=ERROR") ||
			strings.Contains(line, `"level":"ERROR"`) {
			last = line
		}
	}
	if last == "" {
		return ""
	}
	return "; it said last: " + strings.TrimPrefix(last, "error: ")
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func limit(n *int64) string {
	if n == nil {
		return "unlimited"
	}
	return fmt.Sprint(*n)
}
