package options

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/usher-agent/usher/agent/config"
)

// option is a line that was understood. Which fields count depends on its keyword.
type option struct {
	*line
	keyword string // in capitals
	feature feature
	who     who
	n       int64    // a count; seconds, hours or days as the option has them
	on      bool     // of ON and OFF
	group   string   // the name of a group that the line defines
	members []string // of the group
	id      string   // RLM: of the licence that the option is for
	rest    string   // what the option does not share with any other
}

// feature is what an option is for. An empty name stands for all.
type feature struct {
	name      string
	qualifier string // "VERSION=2.0": the option is for a part of the licences of that name
}

// spec returns the feature as the file names it.
func (f feature) spec() string {
	if f.qualifier == "" {
		return f.name
	}
	return f.name + ":" + f.qualifier
}

// kind is a kind of caller that an option is for.
type kind string

// The kinds of callers.
const (
	user          kind = "USER"
	host          kind = "HOST"
	display       kind = "DISPLAY"
	internet      kind = "INTERNET"
	project       kind = "PROJECT"
	group         kind = "GROUP"
	hostGroup     kind = "HOST_GROUP"
	internetGroup kind = "INTERNET_GROUP"
	noProject     kind = "NOPROJECT"
)

// who names the callers that an option is for.
type who struct {
	kind kind
	name string
}

// String returns the callers as the file names them.
func (w who) String() string {
	if w.kind == noProject {
		return string(w.kind)
	}
	return string(w.kind) + " " + w.name
}

// The words behind a keyword, a letter each: n a count, f a feature, w who, o ON or OFF, g a group with its members;
// p a feature or none, i an id or none, * whatever there is.
var (
	flexnetOptions = map[string]string{
		"RESERVE": "nfw", "MAX": "nfw", "MAX_OVERDRAFT": "fn",
		"INCLUDE": "fw", "INCLUDEALL": "w", "EXCLUDE": "fw", "EXCLUDEALL": "w",
		"INCLUDE_BORROW": "fw", "EXCLUDE_BORROW": "fw", "BORROW_LOWWATER": "fn", "MAX_BORROW_HOURS": "fn",
		"GROUP": "g", "USER_GROUP": "g", "HOST_GROUP": "g", "GROUPCASEINSENSITIVE": "o",
		"TIMEOUT": "fn", "TIMEOUTALL": "n", "LINGER": "fn",
		"NOLOG": "*", "REPORTLOG": "*", "DEBUGLOG": "*", "MAX_CONNECTIONS": "*", "AUTOMATIC_REREAD": "*",
		"FQDN_MATCHING": "*", "DAEMON_SELECT_TIMEOUT": "*", "AUTO_ROLLOVER": "*",
		"ACTIVATION_LOWWATER": "*", "ACTIVATION_EXPIRY_DAYS": "*", "INCLUDE_ENTITLEMENT": "*",
		"INCLUDEALL_ENTITLEMENT": "*", "EXCLUDE_ENTITLEMENT": "*", "EXCLUDEALL_ENTITLEMENT": "*",
	}
	rlmOptions = map[string]string{
		"RESERVE": "nfwi", "MAX": "nfwi", "EXEMPT_MAX": "fwi", "EXEMPTALL_MAX": "w",
		"INCLUDE": "fwi", "INCLUDEALL": "w", "EXCLUDE": "fwi", "EXCLUDEALL": "w",
		"INCLUDEALL_ROAM": "w", "EXCLUDEALL_ROAM": "w", "ROAM_MAX_DAYS": "nfi", "ROAM_MAX_COUNT": "nfi",
		"GROUP": "g", "HOST_GROUP": "g", "INTERNET_GROUP": "g",
		"TIMEOUT": "npi", "TIMEOUTALL": "n", "PRIORITY": "nfwi", "EXPRESS": "op",
		"NOLOG": "*", "REPORTLOG": "*", "DEBUGLOG": "*", "ROTATE": "*", "PURGE_REPORTLOG": "*",
		"NO_OLD_RLMUTIL": "*", "CLIENT_CACHE": "*", "TIMEZONE": "*", "MIN_TIMEOUT": "*",
	}
)

func (s System) options() map[string]string {
	if s == RLM {
		return rlmOptions
	}
	return flexnetOptions
}

// kinds returns the kinds of callers that the system knows.
func (s System) kinds() []kind {
	if s == RLM {
		return []kind{user, host, group, hostGroup, internet, internetGroup, project}
	}
	return []kind{user, host, display, internet, project, group, hostGroup}
}

// Title returns the system's name for people.
func (s System) Title() string {
	if s == RLM {
		return "RLM"
	}
	return "FlexNet"
}

// other returns the other system.
func (s System) other() System {
	if s == RLM {
		return FlexNet
	}
	return RLM
}

// reader takes the words of a line one by one.
type reader struct {
	system System
	line   *line
	words  []word // those that are left
	fault  *Fault // the first
}

// read understands a line that is neither blank nor a comment.
func (s System) read(l *line) (*option, *Fault) {
	if l.fault != nil {
		return nil, l.fault
	}
	r := &reader{system: s, line: l, words: l.words[1:]}
	o := &option{line: l, keyword: strings.ToUpper(l.words[0].text)}
	form, known := s.options()[o.keyword]
	if !known {
		return nil, s.unknown(l, o.keyword)
	}
	if s == RLM && slices.ContainsFunc(l.words, func(w word) bool { return w.quoted }) {
		r.wrong("RLM allows no quotes in an options file", "leave them out")
	}
	for _, c := range form {
		if r.fault != nil {
			break
		}
		switch c {
		case 'n':
			o.n = r.count()
		case 'f':
			o.feature = r.feature()
		case 'p':
			if len(r.words) > 0 {
				o.feature = r.feature()
			}
		case 'w':
			o.who = r.who(o.keyword)
		case 'o':
			o.on = r.onOff()
		case 'g':
			o.group, o.members = r.group()
		case 'i':
			o.id = r.id()
		case '*':
			o.rest = strings.TrimSpace(strings.TrimSpace(l.text())[len(l.words[0].text):])
			r.words = nil
		}
	}
	r.end()
	if o.keyword == "USER_GROUP" {
		o.keyword = "GROUP"
	}
	return o, r.fault
}

// unknown is the fault of a line whose first word is no option.
func (s System) unknown(l *line, keyword string) *Fault {
	f := &Fault{Line: l.first, Cause: fmt.Sprintf("%s has no option %s", s.Title(), clip(keyword))}
	other := s.other()
	switch _, known := other.options()[keyword]; {
	case known:
		f.Mend = fmt.Sprintf("it is one of %s: import the file with --from %s, or put # in front of the line",
			other.Title(),
			other)
	case keyword == "SERVER", keyword == "VENDOR", keyword == "DAEMON", keyword == "FEATURE", keyword == "INCREMENT",
		keyword == "PACKAGE", keyword == "ISV", keyword == "LICENSE":
		f.Mend = "this is a licence file; name the options file, which its VENDOR or ISV line names"
	default:
		f.Mend = "put # in front of the line if it is a note, or mend the word"
		if like := config.Nearest(keyword, slices.Sorted(maps.Keys(s.options()))); like != "" {
			f.Mend = fmt.Sprintf("did you mean %s? Else put # in front of the line", like)
		}
	}
	return f
}

func (r *reader) wrong(cause, mend string) {
	if r.fault == nil {
		r.fault = &Fault{Line: r.line.first, Cause: cause, Mend: mend}
	}
}

// next takes a word; what says which it must be.
func (r *reader) next(what string) (string, bool) {
	if len(r.words) == 0 {
		r.wrong(fmt.Sprintf("%s lacks %s", clip(r.line.words[0].text), what), "add it, or put # in front of the line")
		return "", false
	}
	w := r.words[0]
	r.words = r.words[1:]
	if w.text == "" {
		r.wrong(fmt.Sprintf("%s is empty", what), "write it between the quotes")
		return "", false
	}
	return w.text, true
}

func isNumber(s string) bool {
	_, err := strconv.ParseInt(s, 10, 64)
	return err == nil
}

// count takes a whole number from 0 on.
func (r *reader) count() int64 {
	s, ok := r.next("a number")
	if !ok {
		return 0
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > maxCount {
		r.wrong(fmt.Sprintf("%q is no whole number from 0 to %d", clip(s), int64(maxCount)),
			"write the number there; "+r.system.usage(r.line.words[0].text))
		return 0
	}
	return n
}

// maxCount bounds counts and spans, so that none overflows: thirty years of seconds.
const maxCount = 1_000_000_000

// usage returns how an option is written.
func (s System) usage(keyword string) string {
	out := strings.ToUpper(keyword)
	for _, c := range s.options()[out] {
		out += map[rune]string{'n': " NUMBER", 'f': " FEATURE", 'p': " [FEATURE]", 'w': " TYPE NAME", 'o': " ON|OFF",
			'g': " NAME MEMBER …", 'i': " [id=ID]"}[c]
	}
	return "the option is written " + out
}

// qualifiers are the keywords by which FlexNet tells licences of one name apart, in capitals.
var qualifiers = []string{"VERSION", "HOSTID", "EXPDATE", "KEY", "SIGN", "ISSUER", "NOTICE", "VENDOR_STRING",
	"DIST_INFO", "USER_INFO", "ASSET_INFO", "DUP_GROUP", "SN", "FID", "ISSUED", "START"}

// feature takes the name of a feature: f1, f1:VERSION=2.0, or "f1 VERSION=2.0".
func (r *reader) feature() feature {
	s, ok := r.next("a feature")
	if !ok {
		return feature{}
	}
	if r.system == RLM || !strings.Contains(s, "=") {
		return feature{name: s}
	}
	at := -1
	for i, c := range s {
		if c != ':' && c != ' ' && c != '\t' {
			continue
		}
		name, _, found := strings.Cut(s[i+1:], "=")
		if found && slices.Contains(qualifiers, strings.ToUpper(strings.TrimSpace(name))) {
			at = i
			break
		}
	}
	if at <= 0 {
		r.wrong(fmt.Sprintf("%q names no feature by a keyword that there is", clip(s)),
			"write FEATURE:KEYWORD=VALUE with one of "+strings.Join(qualifiers, ", "))
		return feature{}
	}
	name, value, _ := strings.Cut(s[at+1:], "=")
	return feature{name: s[:at], qualifier: strings.TrimSpace(name) + "=" + strings.TrimSpace(value)}
}

// who takes a type and a name.
func (r *reader) who(keyword string) who {
	s, ok := r.next("a type")
	if !ok {
		return who{}
	}
	k := kind(strings.ToUpper(s))
	if r.system == RLM && k == noProject && (keyword == "EXCLUDE" || keyword == "EXCLUDEALL") {
		return who{kind: k}
	}
	if !slices.Contains(r.system.kinds(), k) {
		var names []string
		for _, known := range r.system.kinds() {
			names = append(names, string(known))
		}
		mend := "write one of " + strings.Join(names, ", ")
		if strings.Contains(s, "=") {
			mend = fmt.Sprintf(`a feature with a keyword is one word or in quotes: "FEATURE:%s"`, clip(s))
		}
		r.wrong(fmt.Sprintf("%q is no type of caller", clip(s)), mend)
		return who{}
	}
	name, ok := r.next("the name of a " + string(k))
	if !ok {
		return who{}
	}
	return who{k, name}
}

func (r *reader) onOff() bool {
	s, _ := r.next("ON or OFF")
	switch strings.ToUpper(s) {
	case "ON":
		return true
	case "OFF":
	default:
		r.wrong(fmt.Sprintf("%q is neither ON nor OFF", clip(s)), "write one of them")
	}
	return false
}

// group takes the name of a group and its members.
func (r *reader) group() (name string, members []string) {
	name, ok := r.next("the name of the group")
	if !ok {
		return "", nil
	}
	for len(r.words) > 0 {
		m, ok := r.next("a member")
		if !ok {
			return name, nil
		}
		members = append(members, m)
	}
	return name, members
}

// id takes RLM's id=nnn, if there is one.
func (r *reader) id() string {
	if len(r.words) == 0 {
		return ""
	}
	name, value, found := strings.Cut(r.words[0].text, "=")
	if !found || !strings.EqualFold(name, "id") {
		return ""
	}
	r.words = r.words[1:]
	return value
}

// end reports words that are left over.
func (r *reader) end() {
	if len(r.words) == 0 || r.fault != nil {
		return
	}
	keyword := strings.ToUpper(r.line.words[0].text)
	mend := r.system.usage(keyword)
	if strings.Contains(r.system.options()[keyword], "w") {
		mend = "a line takes one name: write a line for each, or a GROUP; " + mend
	}
	r.wrong(fmt.Sprintf("%q and what follows is too much", clip(r.words[0].text)), mend)
}

// undefined returns a fault for each option that names a group which no line defines.
func undefined(s System, options []option) (out []*Fault) {
	defined := map[who]bool{}
	for _, o := range options {
		if o.group != "" {
			defined[who{kind(o.keyword), s.fold(o.group)}] = true
		}
	}
	for _, o := range options {
		switch k := o.who.kind; k {
		case group, hostGroup, internetGroup:
			if k == group && o.keyword == "MAX" && o.who.name == allGroups && s == FlexNet {
				continue
			}
			if !defined[who{k, s.fold(o.who.name)}] {
				out = append(out,
					&Fault{Line: o.first, Cause: fmt.Sprintf("no line defines the %s %q", k, clip(o.who.name)),
						Mend: fmt.Sprintf("add %s %s with its members, or put # in front of the line", k,
							clip(o.who.name))})
			}
		}
	}
	return out
}

// fold returns a name as the system compares the names of groups: RLM in any case.
func (s System) fold(name string) string {
	if s == RLM {
		return strings.ToLower(name)
	}
	return name
}

// The names that stand for everybody in a MAX of FlexNet: each user, each group for itself.
const (
	allUsers  = "ALL_USERS"
	allGroups = "ALL_GROUPS"
)
