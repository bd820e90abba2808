package keygentest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

var (
	processList = regexp.MustCompile(`^machines/([^/]+)/processes$`)
	oneProcess  = regexp.MustCompile(`^processes/([^/]+)$`)
	pingProcess = regexp.MustCompile(`^processes/([^/]+)/actions/ping$`)
)

// Processes returns all processes, in the order of their pids.
func (c *Cloud) Processes() (out []Process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cull()
	for _, p := range c.procs {
		out = append(out, *p)
	}
	slices.SortFunc(out, func(a, b Process) int { return strings.Compare(a.PID, b.PID) })
	return out
}

// process answers requests about processes; ok is false for other requests.
func (c *Cloud) process(l *License, r *http.Request, path string, body []byte) (out reply, ok bool) {
	if path == "processes" && r.Method == http.MethodPost {
		return c.spawn(l, body), true
	}
	if m := processList.FindStringSubmatch(path); m != nil && r.Method == http.MethodGet {
		return c.list(l, r, m[1]), true
	}
	for _, route := range []*regexp.Regexp{oneProcess, pingProcess} {
		m := route.FindStringSubmatch(path)
		if m == nil {
			continue
		}
		p := c.procs[m[1]]
		switch {
		case p == nil || c.machine(l, p.Machine) == nil:
			return notFound(), true
		case route == pingProcess && r.Method == http.MethodPost:
			p.LastHeartbeat = c.now()
			return reply{200, object{"data": c.processShape(l, p)}}, true
		case route == oneProcess && r.Method == http.MethodDelete:
			delete(c.procs, p.ID)
			return reply{204, nil}, true
		}
	}
	return reply{}, false
}

func (c *Cloud) processShape(l *License, p *Process) object {
	return object{"type": "processes", "id": p.ID,
		"attributes":    object{"pid": p.PID, "status": "ALIVE", "interval": l.HeartbeatDuration / time.Second},
		"relationships": object{"machine": related("machines", p.Machine), "license": related("licenses", l.ID)}}
}

// list answers one page of a machine's processes.
func (c *Cloud) list(l *License, r *http.Request, machine string) reply {
	m := c.machine(l, machine)
	if m == nil {
		return notFound()
	}
	size, _ := strconv.Atoi(r.URL.Query().Get("page[size]"))
	page, _ := strconv.Atoi(r.URL.Query().Get("page[number]"))
	if size < 1 || size > 100 || page < 1 {
		return failed(400, "", "Bad request", "page cannot be")
	}
	var all []*Process
	for _, p := range c.procs {
		if p.Machine == m.ID {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b *Process) int { return strings.Compare(a.ID, b.ID) })
	shapes := []any{}
	for i := (page - 1) * size; i < min(page*size, len(all)); i++ {
		shapes = append(shapes, c.processShape(l, all[i]))
	}
	return reply{200, object{"data": shapes}}
}

// spawn makes a process. Its limit counts by the policy's leasing: those of its machine, or of the licence.
func (c *Cloud) spawn(l *License, body []byte) reply {
	var in struct {
		Data struct {
			Type          string
			Attributes    struct{ PID string }
			Relationships struct {
				Machine struct{ Data struct{ Type, ID string } }
			}
		}
	}
	if json.Unmarshal(body, &in) != nil || in.Data.Type != "processes" || in.Data.Attributes.PID == "" {
		return failed(400, "", "Bad request", "a parameter is missing or cannot be")
	}
	m := c.machine(l, in.Data.Relationships.Machine.Data.ID)
	if m == nil {
		return failed(422, "MACHINE_NOT_FOUND", "Unprocessable resource", "must exist")
	}
	n := int64(0)
	for _, p := range c.procs {
		if p.Machine == m.ID && p.PID == in.Data.Attributes.PID {
			return failed(422, "PID_TAKEN", "Unprocessable resource", "has already been taken")
		}
		if p.Machine == m.ID || l.Policy.ProcessLeasing == "PER_LICENSE" && c.machine(l, p.Machine) != nil {
			n++
		}
	}
	if max := l.Attributes.MaxProcesses; max != nil && n+1 > *max {
		return failed(422, "MACHINE_PROCESS_LIMIT_EXCEEDED", "Unprocessable resource",
			"process count has exceeded maximum allowed for license")
	}
	c.serial++
	p := &Process{ID: fmt.Sprintf("00000000-0000-4000-8000-%012d", c.serial), Machine: m.ID,
		PID: in.Data.Attributes.PID, LastHeartbeat: c.now()}
	c.procs[p.ID] = p
	return reply{201, object{"data": c.processShape(l, p)}}
}
