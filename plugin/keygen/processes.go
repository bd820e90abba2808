package keygen

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/plugin"
)

// Bounds of blocks of processes. Each slot is a process at Keygen and needs a call to stay alive.
const (
	maxBlock  = 32
	maxListed = 100 // of one page
	maxPages  = 20
	pidPrefix = "usher-"
)

// process is a process at Keygen that stands for a slot of a block.
type process struct {
	id, pid string
	number  int64 // in its block
}

// budgetFault is an error that changes no verdict.
func budgetFault(code, format string, args ...any) *plugin.Error {
	return &plugin.Error{Class: plugin.Misconfigured, SystemCode: code, Reason: fmt.Sprintf(format, args...)}
}

// blockID names a block by its licence, host and token. A repeated request gets the same id.
func (s *session) blockID(token string) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "usher-keygen-block\x00%s\x00%s\x00%s\x00%s", s.state.License,
		s.req.Fingerprint, s.req.AgentKey, token))
	return hex.EncodeToString(sum[:16])
}

// CheckOut makes processes of this host's machine, one for each slot; the pool is [PoolProcesses].
func (c *Client) CheckOut(ctx context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	if r.Pool != PoolProcesses {
		return nil, budgetFault(plugin.SystemNoPools, "Keygen hands out no slots of the pool %s, only processes",
			plugin.Short(r.Pool))
	}
	s, e := c.begin(ctx, &r.Request)
	if e != nil {
		return nil, e
	}
	least := r.AtLeast
	if least <= 0 {
		least = r.Slots
	}
	if least > maxBlock {
		return nil, budgetFault(plugin.SystemFull,
			"%d processes at once are more than the %d that one block may have", least, maxBlock)
	}
	if e := s.find(); e != nil {
		return nil, e
	}
	block := s.blockID(r.Token)
	got, life, e := s.spawn(block, 0, min(r.Slots, maxBlock))
	if e == nil && got < least {
		e = budgetFault(plugin.SystemFull, "the licence has fewer than %d processes left", least)
	}
	if e != nil {
		_ = s.end(block, 0) // if this fails, Keygen ends them after a missed ping
		return nil, e
	}
	return s.block(block, got, min(r.For, life))
}

// Extend pings a block's processes, and makes or ends some if the request changes the size.
func (c *Client) Extend(ctx context.Context, r *plugin.Extend) (*plugin.Block, error) {
	s, e := c.begin(ctx, &r.Request)
	if e == nil {
		e = s.find()
	}
	if e != nil {
		return nil, e
	}
	all, e := s.processes(r.Block)
	if e != nil {
		return nil, e
	}
	life, alive := time.Duration(0), int64(0)
	for i, p := range all {
		if r.Slots > 0 && int64(i) >= r.Slots {
			break
		}
		n, ok, e := s.revive(p)
		if e != nil {
			return nil, e
		}
		if ok {
			life, alive = n, alive+1
		}
	}
	switch {
	case alive == 0:
		return nil, budgetFault(plugin.SystemLapsed,
			"the block's processes have ended, and others may hold their slots")
	case r.Slots > 0 && int64(len(all)) > r.Slots:
		if e := s.end(r.Block, r.Slots); e != nil {
			return nil, e
		}
	case r.Slots > alive:
		more, _, e := s.spawn(r.Block, all[len(all)-1].number+1, min(r.Slots, maxBlock)-alive)
		if e != nil {
			return nil, e
		}
		alive += more
	}
	return s.block(r.Block, alive, min(r.For, life))
}

// Return ends a block's processes.
func (c *Client) Return(ctx context.Context, r *plugin.Return) error {
	s, e := c.begin(ctx, &r.Request)
	if e == nil {
		e = s.find()
	}
	if e == nil {
		e = s.end(r.Block, 0)
	}
	if e != nil {
		return e
	}
	return nil
}

func (s *session) block(id string, n int64, span time.Duration) (*plugin.Block, error) {
	b, err := json.Marshal(s.state)
	if err != nil {
		return nil, plugin.Transiently("the state cannot be written: %v", err)
	}
	return &plugin.Block{ID: id, Pool: PoolProcesses, Slots: n, For: span, State: b}, nil
}

// lifetime returns how long a process lives without a ping.
func lifetime(a *answer) (time.Duration, *plugin.Error) {
	var at struct {
		Interval int64 `json:"interval"` // seconds
	}
	r, err := a.resource(&at)
	if err != nil || r.ID == "" || at.Interval <= 0 {
		return 0, plugin.Transiently("Keygen answered with a process that cannot be read")
	}
	return seconds(at.Interval), nil
}

// spawn makes up to n processes of a block, numbered from first on. It returns how many of these exist, and how long
// they live without a ping. It pings processes of an earlier try whose answer was lost.
func (s *session) spawn(block string, first, n int64) (made int64, life time.Duration, e *plugin.Error) {
	for i := first; i < first+n; i++ {
		pid := fmt.Sprintf("%s%s-%d", pidPrefix, block, i)
		a, e := s.send(http.MethodPost, "processes",
			map[string]any{"data": map[string]any{"type": "processes", "attributes": map[string]any{"pid": pid},
				"relationships": map[string]any{"machine": map[string]any{"data": map[string]any{"type": "machines",
					"id": s.state.Machine}}}}})
		if e != nil {
			return made, life, e
		}
		switch code := a.code(); {
		case a.status == http.StatusCreated:
			if life, e = lifetime(a); e != nil {
				return made, life, e
			}
			made++
		case code == "PID_TAKEN":
			there, e := s.processes(block)
			if e != nil {
				return made, life, e
			}
			j := slices.IndexFunc(there, func(p process) bool { return p.pid == pid })
			if j < 0 {
				return made, life, plugin.Transiently("Keygen says that a process exists, and does not list it")
			}
			n, ok, e := s.revive(there[j])
			if e != nil {
				return made, life, e
			}
			if ok {
				made, life = made+1, n
			}
		case code == "MACHINE_PROCESS_LIMIT_EXCEEDED":
			return made, life, nil
		default:
			return made, life, s.fault(a)
		}
	}
	return made, life, nil
}

// revive pings a process. ok is false if the process is dead or gone.
func (s *session) revive(p process) (life time.Duration, ok bool, e *plugin.Error) {
	a, e := s.send(http.MethodPost, "processes/"+url.PathEscape(p.id)+"/actions/ping", nil)
	switch {
	case e != nil:
		return 0, false, e
	case a.status == http.StatusNotFound, a.code() == "PROCESS_HEARTBEAT_DEAD":
		return 0, false, nil
	case a.status != http.StatusOK:
		return 0, false, s.fault(a)
	}
	life, e = lifetime(a)
	return life, e == nil, e
}

// end ends a block's processes but for the first keep.
func (s *session) end(block string, keep int64) *plugin.Error {
	all, e := s.processes(block)
	if e != nil {
		return e
	}
	for i, p := range all {
		if int64(i) < keep {
			continue
		}
		a, e := s.send(http.MethodDelete, "processes/"+url.PathEscape(p.id), nil)
		switch {
		case e != nil:
			return e
		case a.status != http.StatusNoContent && a.status != http.StatusOK && a.status != http.StatusNotFound:
			return s.fault(a)
		}
	}
	return nil
}

// processes returns a block's processes, in the order of their numbers.
func (s *session) processes(block string) (out []process, e *plugin.Error) {
	for page := 1; page <= maxPages; page++ {
		a, e := s.send(http.MethodGet, fmt.Sprintf("machines/%s/processes?page[size]=%d&page[number]=%d",
			url.PathEscape(s.state.Machine), maxListed, page), nil)
		switch {
		case e != nil:
			return nil, e
		case a.status == http.StatusNotFound:
			return nil, nil
		case a.status != http.StatusOK:
			return nil, s.fault(a)
		}
		var all []resource
		if err := json.Unmarshal(a.Data, &all); err != nil {
			return nil, plugin.Transiently("Keygen answered with processes that cannot be read")
		}
		for i := range all {
			var at struct {
				PID string `json:"pid"`
			}
			if all[i].attributes(&at) != nil {
				continue
			}
			number, of := strings.CutPrefix(at.PID, pidPrefix+block+"-")
			if n, err := strconv.ParseInt(number, 10, 63); of && err == nil && n >= 0 {
				out = append(out, process{all[i].ID, at.PID, n})
			}
		}
		if len(all) < maxListed {
			break
		}
	}
	slices.SortFunc(out, func(a, b process) int { return cmp.Compare(a.number, b.number) })
	return out, nil
}
