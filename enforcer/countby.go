package enforcer

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// CountBy is the unit that counts as one use of a slot (FlexNet's DUP_GROUP, RLM's share): one of the words below, or
// several words with + between them, all of which must be the same. A word may be "label:NAME": a label that the
// acquire states. After a / stands how many leases one use has at most. "user+host" and "user+label:session/3" are
// examples. Two that differ in the order of their words alone mean the same.
type CountBy string

// The units. The zero CountBy is read as CountLease.
const (
	CountLease   CountBy = "lease"
	CountProcess CountBy = "process"
	CountUser    CountBy = "user"
	CountHost    CountBy = "host"
	CountPod     CountBy = "pod"
)

const (
	labelWord    = "label:" // begins a word that names a label
	mostWords    = 8        // of a CountBy
	mostPerUse   = 1_000_000
	countByForms = "lease, process, user, host, pod or label:NAME, or several of the last five with + between them, " +
		"and a /N after them for at most N leases in one use"
)

// labelName is a label that a CountBy may name.
var labelName = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// Check says why this is no unit; nil: it is one, or the zero value.
func (c CountBy) Check() error {
	if c == "" {
		return nil
	}
	text, number, limited := strings.Cut(string(c), "/")
	words := strings.Split(text, "+")
	if len(words) > mostWords {
		return fmt.Errorf("%q has %d words, at most %d may be", short(string(c)), len(words), mostWords)
	}
	own := limited || !strings.Contains(text, labelWord)
	for i, w := range words {
		name, isLabel := strings.CutPrefix(w, labelWord)
		switch {
		case isLabel && !labelName.MatchString(name):
			return fmt.Errorf("%q names a label of other characters than letters, digits and . _ -, or of more than 64",
				short(string(c)))
		case !isLabel && !slices.Contains([]CountBy{CountLease, CountProcess, CountUser, CountHost, CountPod},
			CountBy(w)):
			return fmt.Errorf("%q is not one of %s", short(string(c)), countByForms)
		case CountBy(w) == CountLease && (len(words) > 1 || limited):
			return fmt.Errorf("%q: lease stands alone, because each lease is then a use of its own", short(string(c)))
		case slices.Contains(words[:i], w):
			return fmt.Errorf("%q names %s twice", short(string(c)), w)
		}
		own = own || !isLabel && CountBy(w) != CountHost
	}
	if n, err := strconv.ParseInt(number, 10, 64); limited && (err != nil || n < 1 || n > mostPerUse ||
		strconv.FormatInt(n, 10) != number) {
		return fmt.Errorf("%q: after the / stands how many leases one use has at most, from 1 to %d", short(string(c)),
			mostPerUse)
	}
	if !own {
		return fmt.Errorf("%q would let all callers share one slot, because any caller may state any label; add user, "+
			"process or pod, or a /N for at most N leases in one use", short(string(c)))
	}
	return nil
}

// short cuts a text off that is too long to be told.
func short(s string) string {
	if len(s) > 128 {
		return s[:128] + "…"
	}
	return s
}

// most returns how many leases one use has at most; 0: any number.
func (c CountBy) most() int64 {
	i := strings.LastIndexByte(string(c), '/')
	if i < 0 {
		return 0
	}
	n, err := strconv.ParseInt(string(c[i+1:]), 10, 64)
	if err != nil { // a licence with such a unit is not valid
		return 1
	}
	return n
}

// words returns the units all of which must be the same.
func (c CountBy) words() CountBy {
	text, _, _ := strings.Cut(string(c), "/")
	return CountBy(text)
}

// Counts reports whether a word is among those of the unit.
func (c CountBy) Counts(word CountBy) bool {
	for w := range strings.SplitSeq(string(c.words()), "+") {
		if CountBy(w) == word {
			return true
		}
	}
	return false
}

// narrower lists, for each word, the words that it is never looser than, wherever an agent runs: callers that count as
// one by the former always count as one by the latter too. A process belongs to one user and one host. But a pod may be
// unknown where a process is known, a user may be in several pods, and a pod may have several users.
var narrower = map[CountBy][]CountBy{
	CountHost:    {CountHost},
	CountUser:    {CountUser, CountHost},
	CountPod:     {CountPod, CountHost},
	CountProcess: {CountProcess, CountUser, CountHost},
}

// narrows reports whether callers that count as one by the unit always count as one by a word.
func (c CountBy) narrows(word CountBy) bool {
	for w := range strings.SplitSeq(string(c.words()), "+") {
		if w := CountBy(w); w == word || word == CountHost || slices.Contains(narrower[w], word) {
			return true
		}
	}
	return false
}

// Narrows reports whether counting by c is at least as strict as counting by a licence's unit, in any environment.
func (c CountBy) Narrows(signed CountBy) bool {
	signed = orDefault(signed, CountLease)
	switch {
	case c == CountLease:
		return true
	case signed == CountLease:
		return c.most() == 1
	case signed.most() > 0 && (c.most() == 0 || c.most() > signed.most()):
		return false
	}
	for w := range strings.SplitSeq(string(signed.words()), "+") {
		if !c.narrows(CountBy(w)) {
			return false
		}
	}
	return true
}

// unitOf returns the unit that a holder counts as by a licence's count_by. Empty: the unit is not known, and each of
// the holder's leases counts for itself. So a pool counted by process, user or pod is never counted more loosely where
// that is not known.
func unitOf(by CountBy, h *Holder) string { return unitIn(by, h, h.Labels) }

// unitIn is unitOf of one of a lease's holders. The label is the lease's: a co-holder states none.
func unitIn(by CountBy, h *Holder, labels map[string]string) string {
	switch by {
	case CountLease, CountProcess, CountUser, CountHost, CountPod, "":
		return unitOfWord(by, h)
	}
	unit, known := joined(by, h, labels)
	if !known {
		return ""
	}
	return unit
}

// joined returns what is known of a holder of the words of a unit, and whether that is all of it.
func joined(by CountBy, h *Holder, labels map[string]string) (unit string, known bool) {
	var b strings.Builder
	known = true
	for w := range strings.SplitSeq(string(by.words()), "+") {
		part := ""
		if name, isLabel := strings.CutPrefix(w, labelWord); !isLabel {
			part = unitOfWord(CountBy(w), h)
		} else if v := labels[name]; v != "" {
			part = "label " + v
		}
		known = known && part != ""
		b.WriteString(strconv.Quote(part)) // a caller may choose a name that looks like two parts
	}
	return b.String(), known
}

// unitOfWord is unitOf by one word that names no label.
func unitOfWord(by CountBy, h *Holder) string {
	switch by {
	case CountProcess:
		// Counted by user first: a process may ask as several users or as nobody, and count_by process is never looser
		// than count_by user.
		user := userUnit(h)
		switch {
		case user == "" || h.PID == 0 && h.Inode == 0:
			return ""
		case h.PID == 0:
			return "inode " + strconv.FormatUint(h.Inode, 10) + "@" + user
		}
		return strconv.Itoa(int(h.PID)) + "@" + strconv.FormatUint(h.Start, 10) + "@" + user
	case CountUser:
		return userUnit(h)
	case CountHost:
		return "host " + h.Host
	case CountPod:
		if h.Pod == "" {
			return ""
		}
		return "pod " + h.Pod
	default:
		return ""
	}
}

func userUnit(h *Holder) string {
	switch {
	case h.User != "":
		return "user " + h.User
	case h.Credential != "":
		return "credential " + h.Credential
	case h.Who().nobody(): // and no user
		return ""
	default:
		return "uid " + strconv.FormatUint(uint64(h.UID), 10)
	}
}

// holdersBy returns the unit by which the holders of one lease count, where the configuration has narrowed a licence's
// unit to another. A lease counts once, however many processes join it, but holders that the licence counts one by one
// still count so.
func holdersBy(signed, by CountBy) CountBy {
	if by == CountLease && (signed.Counts(CountProcess) || signed.Counts(CountPod)) {
		return signed
	}
	return ""
}
