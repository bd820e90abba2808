package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin/catalog"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// signFlags are the flags of sign.
type signFlags struct {
	key, signer, public, alg, claimsFile, out, ledger, armour string
	force                                                     bool
	bind                                                      []string

	id, product, issuer, licensee, environment, role, addOn, issued, notBefore, expires string
	supersedes, limits, meters, features                                                []string
	overage, countBy, resets, units, adjustable                                         []string
	scope, versions, releasedBefore, strategy, cores, onExpiry, clock                   string
	agentKeys                                                                           []string
	siteServer                                                                          string
	grace, clockTolerance, agentAway, maxBorrow                                         string
	heartbeat, heartbeatGrace, checkIn, checkInGrace                                    string
	activation, reactivations, trial, emergency                                         string
	reportUsage, resetClock, earlyReturn, countConfigured                               bool
	revokes                                                                             []string
}

func (c *cli) signCommand() *cobra.Command {
	var o signFlags
	cmd := &cobra.Command{Use: "sign --key K.key --product P --licensee L --limit streams=8 …", Short: "Sign a licence",
		Args: cobra.NoArgs,
		Long: `Sign a licence with a key on disk (--key) or with a command that reaches a KMS or HSM (--signer,
with --public for the key that belongs to it). The terms come from flags, or from a JSON file of
claims (--claims, "-" for standard input), whose claims the flags overrule. docs/licence-format.md
describes every claim.

The command first writes the licence to the ledger, issued.jsonl beside the key.`,
		Example: `  usher vendor sign --key keys/2026-a.key --product transcoder --licensee "Example Ltd" \
    --limit streams=8 --scope host --expires 2027-01-31
  usher vendor sign --key keys/2026-a.key --claims terms.json --bind request.json --out example.lic
  usher vendor sign --signer 'kms-sign --key prod' --public keys/2026-a.pub --claims terms.json`,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.sign(cmd, &o) }}
	f := cmd.Flags()
	f.SortFlags = false
	o.addSigner(cmd)
	f.StringVar(&o.claimsFile, "claims", "", "a JSON file of claims; flags add to it; - is standard input")
	f.StringVar(&o.id, "id", "", "the licence's id (default: made up)")
	f.StringVar(&o.product, "product", "", "the product")
	f.StringVar(&o.licensee, "licensee", "", "the customer")
	f.StringVar(&o.issuer, "issuer", "", "the issuer")
	f.StringArrayVar(&o.limits, "limit", nil, "a pool and its slots: streams=8, or streams=unlimited; may be repeated")
	f.StringArrayVar(&o.meters, "meter", nil, "a meter and its draws: renders=1000; may be repeated")
	f.StringArrayVar(&o.features, "feature", nil,
		"a feature: hd, hd=false, bitrate=50, bitrate=50:Mbit/s, tier=gold; may be repeated")
	f.StringArrayVar(&o.overage, "overage", nil, "slots that may be granted beyond a limit: streams=2; may be repeated")
	f.StringArrayVar(&o.countBy, "count-by", nil,
		"the unit of one use: streams=process (lease, process, user, host, pod, label:NAME; several with +; /N for at "+
			"most N leases in one): streams=user+host/3; may be repeated")
	f.StringArrayVar(&o.units, "unit", nil, "the name of a slot or draw: streams=stream; may be repeated")
	f.StringArrayVar(&o.adjustable, "adjustable", nil,
		"a meter whose users may take draws back, through a dialect; may be repeated")
	f.StringArrayVar(&o.resets, "resets", nil, "when a meter resets: renders=month (week, month); may be repeated")
	f.StringVar(&o.scope, "scope", "", "the scope of the limits: host or site (default: host when bound, else site)")
	f.StringVar(&o.issued, "issued", "", "the time of issue (default now)")
	f.StringVar(&o.notBefore, "not-before", "", "good from this time on: 2026-12-01, or RFC 3339")
	f.StringVar(&o.expires, "expires", "",
		"good until: a date (the end of that day, UTC), RFC 3339, or a span from now such as 30d (default: for ever)")
	f.StringVar(&o.grace, "grace", "", "how long it stays valid after its expiry: 7d")
	f.StringVar(&o.onExpiry, "on-expiry", "", "the fate of held slots then: drain, revoke, keep")
	f.StringVar(&o.environment, "environment", "", "production or test")
	f.StringVar(&o.role, "role", "", "base, add-on or free-tier")
	f.StringVar(&o.addOn, "add-on", "", "make it an add-on to the licence with this id; * is any base")
	f.StringArrayVar(&o.supersedes, "supersedes", nil, "the id of a licence that this one retires; may be repeated")
	f.StringVar(&o.versions, "versions", "", `versions covered: ">=4 <6"`)
	f.StringVar(&o.releasedBefore, "released-before", "", "cover releases before this date")
	f.StringVar(&o.cores, "cores", "",
		"the most cores of a host: 16, or 16:logical (physical, logical, effective)")
	f.StringArrayVar(&o.agentKeys, "agent-key", nil, "bind to the agent with this key (thumbprint); may be repeated")
	f.StringVar(&o.siteServer, "site-server", "",
		"the customer's server that may share site pools out: its public key (F.pub), or its thumbprint")
	f.StringVar(&o.heartbeat, "heartbeat", "", "the longest time between heartbeats to the upstream: 10m")
	f.StringVar(&o.heartbeatGrace, "heartbeat-grace", "", "how late a heartbeat may be")
	f.StringVar(&o.checkIn, "check-in", "", "the longest time between check-ins with the upstream: 30d, 3months, 1year")
	f.StringVar(&o.checkInGrace, "check-in-grace", "", "how late a check-in may be")
	f.StringVar(&o.reactivations, "reactivations", "",
		"how often a host that lost its state may be activated again: 3/30d (the default), 0/1d for never")
	f.StringVar(&o.activation, "activation", "",
		"the longest time to the first contact with the upstream: 24h; 0: at once")
	f.BoolVar(&o.reportUsage, "report-usage", false, "send usage figures with heartbeats and check-ins")
	f.StringVar(&o.trial, "trial", "",
		"good for this long from its first use: 30d; bind it to one agent (--bind or --agent-key)")
	f.StringVar(&o.emergency, "emergency", "", "how long an operator may bridge a lapse, and how often a year: 72h/2")
	f.StringArrayVar(&o.revokes, "revoke", nil,
		"the id of a licence to revoke; makes the document a notice, which grants nothing")
	f.BoolVar(&o.resetClock, "reset-clock", false, "correct a false time that the bound agent has accepted")
	f.StringVar(&o.clock, "clock", "", "the effect of a clock that was set back: lenient (a warning) or strict")
	f.StringVar(&o.clockTolerance, "clock-tolerance", "", "how far back a clock may be")
	f.StringVar(&o.agentAway, "agent-away", "", "how long held slots stand without the agent (default 10m)")
	f.StringVar(&o.maxBorrow, "max-borrow", "", "the longest that a slot may be borrowed: 7d")
	f.BoolVar(&o.earlyReturn, "early-return", false, "borrowed slots may be given back before their time")
	return cmd
}

// addSigner adds the flags for the signing key, the hosts to bind to, and the output.
func (o *signFlags) addSigner(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.key, "key", "", "the private key to sign with, K.key; its name is the key's id")
	f.StringVar(&o.signer, "signer", "", "a shell command that signs its standard input")
	f.StringVar(&o.public, "public", "", "with --signer: the public key, K.pub")
	f.StringVar(&o.alg, "alg", "", "the algorithm, if the key has several: PS256 (default) or RS256 for RSA")
	f.StringVar(&o.out, "out", "", "the file to write (default standard output)")
	f.BoolVar(&o.force, "force", false, "overwrite the file of --out if it exists")
	f.StringVar(&o.armour, "armour", "auto",
		"wrap the licence for e-mail: yes, no, auto (yes for a terminal and a file)")
	f.StringVar(&o.ledger, "ledger", "", "the ledger (default issued.jsonl beside the key)")
	f.StringArrayVar(&o.bind, "bind", nil,
		"bind to the host of this `request`, which usher fingerprint wrote; may be repeated")
	f.StringVar(&o.strategy, "strategy", "",
		"with --bind, how many components must match: any, two, most, all (default most)")
	f.BoolVar(&o.countConfigured, "count-configured", false,
		"with --bind, components that the host's configuration states count like measured ones")
}

func (c *cli) sign(cmd *cobra.Command, o *signFlags) error {
	now := time.Now().UTC().Truncate(time.Second)
	s, keyFile, err := c.loadSigner(cmd, o)
	if err != nil {
		return err
	}
	claims, err := c.claims(o, now)
	if err != nil {
		return err
	}
	if len(claims.Pools)+len(claims.Meters)+len(claims.Features) == 0 && claims.Role != string(enforcer.RoleNotice) {
		fprintln(c.errs,
			"warning: the licence grants no slots, draws or features: give --limit, --meter or --feature")
	}
	if err := c.issue(o, s, keyFile, claims, now); err != nil {
		return nameFlag(cmd, err)
	}
	return nil
}

// issue binds, signs, records and writes a licence.
func (c *cli) issue(o *signFlags, s *issue.Signer, keyFile string, claims *usher.Claims, now time.Time) error {
	if err := writable(o.out, o.force); err != nil {
		return err // before it is signed and in the ledger
	}
	for _, path := range o.bind {
		b, err := readText(path)
		if err != nil {
			return fmt.Errorf("request: %w", err)
		}
		before := len(claims.Hosts)
		if err := issue.Bind(claims, path, b, o.strategy, catalog.HostComponentNames()...); err != nil {
			return err
		}
		if len(claims.Hosts) > before {
			claims.Hosts[before].CountConfigured = o.countConfigured
		}
	}
	doc, err := s.Sign(claims)
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	c.warnAbout(claims, usher.Describe(doc), now)
	ledger := o.ledger
	if ledger == "" {
		ledger = filepath.Join(filepath.Dir(keyFile), "issued.jsonl")
	}
	for _, id := range issue.Unissued(ledger, claims.Product, claims.Revokes) {
		fprintf(c.errs,
			"warning: the ledger %s has no licence %s of product %s; is the id right? The notice revokes it all "+
				"the same\n", ledger, id, claims.Product)
	}
	if err := issue.Record(ledger, now, s.Anchor.KeyID, claims, doc); err != nil {
		return err
	}
	file := append(doc, '\n')
	if o.armour == "yes" || o.armour == "auto" && (o.out != "" || isTerminal(c.out)) {
		file = usher.Armour(doc)
	}
	if o.out == "" || o.out == "-" {
		return lines(c.out, string(file))
	}
	if err := writeOut(o.out, file, o.force); err != nil {
		return err
	}
	if c.json {
		return c.printJSON(map[string]string{"id": claims.ID, "file": o.out, "kid": s.Anchor.KeyID, "ledger": ledger})
	}
	fprintf(c.out, "%s  %s %s, signed with key %s\n", o.out, kindOf(claims), claims.ID, s.Anchor.KeyID)
	return nil
}

func (c *cli) loadSigner(cmd *cobra.Command, o *signFlags) (*issue.Signer, string, error) {
	switch {
	case o.key != "" && o.signer != "":
		return nil, "", usage("--key and --signer are both given: use one of them")
	case o.key != "":
		s, err := issue.LoadSigner(o.key, o.alg)
		return s, o.key, err
	case o.signer == "":
		return nil, "", fail(exitUsage, "`usher vendor keygen` makes a key",
			"a key is missing: give --key, or --signer and --public")
	case o.public == "":
		return nil, "", usage("--signer needs --public: the public key that belongs to it")
	}
	b, err := readText(o.public)
	if err != nil {
		return nil, "", fmt.Errorf("public key: %w", err)
	}
	anchor, err := usher.NewAnchor(issue.KeyIDOf(o.public), b, o.alg)
	if err != nil {
		return nil, "", err
	}
	return issue.CommandSigner(cmd.Context(), o.signer, anchor), o.public, nil
}

// claims joins the claims of the file and the flags.
func (c *cli) claims(o *signFlags, now time.Time) (*usher.Claims, error) {
	claims := &usher.Claims{}
	if o.claimsFile != "" {
		b, err := c.readFile(o.claimsFile)
		if err != nil {
			return nil, err
		}
		if claims, err = usher.ReadClaims(b, true); err != nil {
			return nil, fmt.Errorf("claims %s: %w", o.claimsFile, err)
		}
	}
	set := func(to *string, v string) {
		if v != "" {
			*to = v
		}
	}
	set(&claims.ID, o.id)
	set(&claims.Product, o.product)
	set(&claims.Issuer, o.issuer)
	set(&claims.Licensee, o.licensee)
	set(&claims.Environment, o.environment)
	set(&claims.Role, o.role)
	set(&claims.Versions, o.versions)
	set(&claims.OnExpiry, o.onExpiry)
	set(&claims.Clock, o.clock)
	if o.addOn != "" {
		claims.Role, claims.AddOnTo = "add-on", strings.TrimPrefix(o.addOn, "*")
	}
	claims.Supersedes = append(claims.Supersedes, o.supersedes...)
	claims.AgentKeys = append(claims.AgentKeys, o.agentKeys...)
	if claims.Revokes = append(claims.Revokes, o.revokes...); len(o.revokes) > 0 {
		claims.Role = "notice"
	}
	if o.siteServer != "" {
		jkt, err := issue.ThumbprintOf(o.siteServer)
		if err != nil {
			return nil, usage("--site-server: %w", err)
		}
		claims.SiteServer = &usher.Confirmation{Thumbprint: jkt}
	}
	claims.ReportUsage = claims.ReportUsage || o.reportUsage
	claims.ResetClock = claims.ResetClock || o.resetClock
	if claims.Product == "" {
		return nil, usage("--product is missing: name the licence's product")
	}
	if claims.ID == "" {
		claims.ID = claims.Product + "-" + strings.ToLower(randomID())
	}
	if claims.Issued == 0 {
		claims.Issued = now.Unix()
	}
	if err := o.times(claims, now); err != nil {
		return nil, err
	}
	if err := o.counts(claims); err != nil {
		return nil, err
	}
	return claims, nil
}

// dates puts the instants that flags name into the claims.
func (o *signFlags) dates(claims *usher.Claims, now time.Time) error {
	for _, t := range []struct {
		flag, value string
		end         bool
		to          *int64
	}{{"issued", o.issued, false, &claims.Issued}, {"not-before", o.notBefore, false, &claims.NotBefore},
		{"expires", o.expires, true, &claims.Expires},
		{"released-before", o.releasedBefore, false, &claims.ReleasedBefore}} {
		if t.value == "" {
			continue
		}
		at, err := parseTime(t.value, now, t.end)
		if err != nil {
			return usage("--%s: %w", t.flag, err)
		}
		*t.to = usher.DateOf(at)
	}
	return nil
}

// times puts the dates and the spans that flags name into the claims.
func (o *signFlags) times(claims *usher.Claims, now time.Time) error {
	if err := o.dates(claims, now); err != nil {
		return err
	}
	claims.EarlyReturn = claims.EarlyReturn || o.earlyReturn
	var heartbeat usher.Period
	var checkIn usher.CheckIn
	var activation usher.Activation
	every := o.checkIn
	if months, ok := monthsOf(every); ok {
		checkIn.Months, every = months, ""
	}
	length, perYear, _ := strings.Cut(o.emergency, "/")
	again, within, _ := strings.Cut(o.reactivations, "/")
	var reactivations usher.Reactivations
	var emergency usher.Emergency
	for _, d := range []struct {
		flag, value string
		to          *int64
	}{{"grace", o.grace, &claims.Grace}, {"clock-tolerance", o.clockTolerance, &claims.ClockTolerance},
		{"agent-away", o.agentAway, &claims.AgentAway},
		{"max-borrow", o.maxBorrow, &claims.MaxBorrow}, {"heartbeat", o.heartbeat, &heartbeat.Every},
		{"heartbeat-grace", o.heartbeatGrace, &heartbeat.Grace},
		{"check-in", every, &checkIn.Every}, {"check-in-grace", o.checkInGrace, &checkIn.Grace},
		{"activation", o.activation, &activation.Grace}, {"trial", o.trial, &claims.Trial},
		{"emergency", length, &emergency.Length}, {"reactivations", within, &reactivations.Within}} {
		if d.value == "" {
			continue
		}
		v, err := config.ParseDuration(d.value)
		switch {
		case err != nil:
			return usage("--%s: %w", d.flag, err)
		case v%time.Second != 0:
			return usage("--%s: %q is not whole seconds", d.flag, d.value)
		case v == 0 && !slices.Contains(zeroSpans, d.flag):
			return usage("--%s: %q is no time at all; give at least a second, or leave it out", d.flag, d.value)
		}
		*d.to = int64(v / time.Second)
	}
	if checkIn.Months == 0 && every == "" && o.checkIn != "" {
		return usage("--check-in: %q is no time at all; give at least a second, or leave it out", o.checkIn)
	}
	if heartbeat != (usher.Period{}) {
		claims.Heartbeat = &heartbeat
	}
	if checkIn != (usher.CheckIn{}) {
		claims.CheckIn = &checkIn
	}
	if o.activation != "" {
		claims.Activation = &activation
	}
	if o.reactivations != "" {
		n, err := strconv.ParseInt(again, 10, 64)
		if err != nil || within == "" {
			return usage("--reactivations %s: give a number and a span, such as 3/30d", o.reactivations)
		}
		reactivations.Max, claims.Reactivations = n, &reactivations
	}
	if o.emergency != "" {
		n, err := strconv.ParseInt(perYear, 10, 64)
		if err != nil {
			return usage("--emergency: %q is not a length and a number a year, such as 72h/2", o.emergency)
		}
		emergency.PerYear = n
		claims.Emergency = &emergency
	}
	return nil
}

// zeroSpans are the flags of which a span of 0 says something: at once, or none.
var zeroSpans = []string{"grace", "heartbeat-grace", "check-in-grace", "activation", "max-borrow"}

// monthsOf reads a calendar period: 1month, 3months, 1year, 2years, 1y.
func monthsOf(s string) (int64, bool) {
	for unit, months := range map[string]int64{"month": 1, "year": 12, "y": 12} {
		if number, ok := strings.CutSuffix(strings.TrimSuffix(s, "s"), unit); ok {
			if n, err := strconv.ParseInt(number, 10, 16); err == nil {
				return n * months, true
			}
		}
	}
	return 0, false
}

// parseTime reads RFC 3339, a date (its beginning, or its end), or a span from now. It is in the years 1970 to 9999.
func parseTime(s string, now time.Time, end bool) (time.Time, error) {
	t, err := timeOf(s, now, end)
	if err != nil {
		return time.Time{}, err
	}
	return t, config.DateInRange(s, t)
}

func timeOf(s string, now time.Time, end bool) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC(), nil
	}
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		switch next := t.AddDate(0, 0, 1); {
		case !end:
			return t, nil
		case next.Year() > 9999: // which no format can write
			return next.Add(-time.Second), nil
		default:
			return next, nil
		}
	}
	if n, ok := monthsOf(s); ok {
		return now.AddDate(0, int(n), 0).Truncate(time.Second), nil
	}
	// A bare 0 may mean now as well as 1970.
	if d, err := config.ParseDuration(strings.TrimPrefix(s, "-")); err == nil && s != "0" {
		if strings.HasPrefix(s, "-") {
			d = -d
		}
		return now.Add(d).Truncate(time.Second), nil
	}
	return time.Time{}, fmt.Errorf(
		"%q is neither a date (2027-01-31), nor RFC 3339 (2027-01-31T12:00:00Z), nor a span (30d, 6months, 1y)", s)
}
