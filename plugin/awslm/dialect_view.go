package awslm

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/redact"
)

// noAccount is the AWS account of licences that no account has issued.
const noAccount = "000000000000"

// view is a licence in the API's form. It joins the licences of one product and issuer that are in force together, or
// shows one that is not in force.
type view struct {
	License
	inForce bool
	why     string  // the reason if it is not in force
	terms   []*term // in the order of License.Entitlements
}

// term is an entitlement in Usher's terms.
type term struct {
	name  string // of the pool, meter or feature
	unit  string
	value string // of a feature
	is    termKind
	most  int64 // of a rate
	on    bool  // of a feature
}

type termKind int

const (
	isFeature termKind = iota
	isRate
	isPool
	isMeter
)

// views returns all licences, those in force first. It makes them once for each verdict.
func (h *local) views() []*view {
	v := h.Verdict()
	h.mu.Lock()
	defer h.mu.Unlock()
	if v == nil {
		return nil
	}
	if v != h.seen {
		h.seen, h.shown = v, viewsOf(v)
	}
	return h.shown
}

func viewsOf(v *enforcer.Verdict) (out []*view) {
	for i := range v.Licenses {
		j := &v.Licenses[i]
		if j.License == nil || j.Problem != nil || j.Role == enforcer.RoleNotice {
			continue
		}
		n := newView(v, j)
		same := func(o *view) bool {
			return o.LicenseArn == n.LicenseArn || o.inForce && n.inForce && o.ProductSKU == n.ProductSKU &&
				o.Issuer.KeyFingerprint == n.Issuer.KeyFingerprint
		}
		if at := slices.IndexFunc(out, same); at < 0 {
			out = append(out, n)
		} else if n.inForce {
			out[at].add(n)
		}
	}
	return out
}

// add joins the entitlements of an add-on.
func (v *view) add(o *view) {
	for i, e := range o.Entitlements {
		at := slices.IndexFunc(v.Entitlements, func(x Entitlement) bool { return x.Name == e.Name && x.Unit == e.Unit })
		if at < 0 {
			v.Entitlements, v.terms = append(v.Entitlements, e), append(v.terms, o.terms[i])
			continue
		}
		was := &v.Entitlements[at]
		if was.Overage = was.Overage || e.Overage; was.MaxCount != nil && e.MaxCount != nil {
			n := int64(enforcer.Limit(*was.MaxCount).Plus(enforcer.Limit(*e.MaxCount)).Min(enforcer.MaxCount))
			was.MaxCount = &n
			v.terms[at].most = max(v.terms[at].most, o.terms[i].most)
		}
	}
}

func newView(v *enforcer.Verdict, j *enforcer.Judged) *view {
	l := j.License
	out := &view{inForce: j.InForce && v.Good(), why: j.Reason}
	if j.InForce && !v.Good() {
		out.why = v.Reason
	}
	if said, ok := receivedOf(l); ok {
		out.License = said
		out.fromReceived(v)
	} else {
		out.fromTerms(v, l)
	}
	out.Status = statusOf(out.inForce, j.Code)
	c := &out.ConsumptionConfiguration
	if c.BorrowConfiguration = nil; v.MaxBorrow > 0 {
		c.BorrowConfiguration = &Consumption{AllowEarlyCheckIn: &v.EarlyReturn,
			MaxTimeToLiveInMinutes: max(1, int64(v.MaxBorrow/time.Minute))}
	}
	operations := []string{"CheckoutLicense", "CheckInLicense", "ExtendConsumptionLicense", "ListPurchasedLicenses"}
	if c.BorrowConfiguration != nil {
		operations = append(operations, "CheckoutBorrowLicense")
	}
	out.ReceivedMetadata = &ReceivedMetadata{ReceivedStatus: ReceivedActive, ReceivedStatusReason: clip(j.Reason, 400),
		AllowedOperations: operations}
	return out
}

// receivedOf returns a licence as AWS stated it. ok is false if the agent did not receive it from AWS.
func receivedOf(l *enforcer.License) (out License, ok bool) {
	if l.System != System {
		return out, false
	}
	b, err := json.Marshal(l.Terms)
	return out, err == nil && json.Unmarshal(b, &out) == nil && out.LicenseArn == l.ID && out.ProductSKU != ""
}

// fromReceived finds the kind of each entitlement of a received licence; see License.addEntitlements.
func (v *view) fromReceived(verdict *enforcer.Verdict) {
	list := v.Entitlements
	v.Entitlements = nil
	for i := range list {
		e := list[i]
		t := &term{name: TermName(e.Name), unit: e.Unit, value: e.Value, on: true}
		switch {
		case e.isPool():
			t.is = isPool
		case e.isMeter():
			t.is = isMeter
		case KindOf(e.Unit) == KindRate && e.MaxCount != nil:
			t.is, t.most = isRate, *e.MaxCount
		case KindOf(e.Unit) != KindFeature:
			continue
		default:
			t.on = on(verdict, t.name, featureOf(e.Value))
		}
		v.Entitlements, v.terms = append(v.Entitlements, e), append(v.terms, t)
	}
}

// fromTerms states a licence of another system, or a borrowed one, in AWS's form.
func (v *view) fromTerms(verdict *enforcer.Verdict, l *enforcer.License) {
	name, account := cmp.Or(l.Issuer, "Usher"), noAccount
	print := l.Issuer
	if isIssuer(l.Issuer) {
		parts := strings.Split(l.Issuer, ":")
		account, name = parts[1], parts[2]
	} else {
		print = "aws:" + noAccount + ":" + strings.TrimSpace(clip(strings.ReplaceAll(name, ":", "-"), 255)) +
			":issuer-fingerprint"
	}
	id := l.ID
	if arn(id) != nil {
		sum := sha256.Sum256([]byte(l.System + "\x00" + l.ID))
		id = "arn:aws:license-manager::" + account + ":license:l-" + hex.EncodeToString(sum[:16])
	}
	v.License = License{LicenseArn: id, LicenseName: l.ID, ProductName: l.Product, ProductSKU: l.Product,
		Issuer:     Issuer{Name: name, KeyFingerprint: print},
		HomeRegion: "local", Beneficiary: l.Licensee, Version: "1", CreateTime: ZonedTime(l.Issued),
		ConsumptionConfiguration: ConsumptionConfiguration{RenewType: RenewNone,
			ProvisionalConfiguration: &Consumption{MaxTimeToLiveInMinutes: int64(usualTTL / time.Minute)}}}
	if begin := cmp.Or(l.NotBefore, l.Issued); !begin.IsZero() {
		v.Validity.Begin = ZonedTime(begin)
	}
	if !l.Expires.IsZero() {
		v.Validity.End = ZonedTime(l.Expires)
	}
	for _, n := range sortedNames(l.Pools) {
		p := l.Pools[n]
		v.put(Entitlement{Name: n, Unit: UnitCount, MaxCount: countOf(p.Max), Overage: p.Overage != 0,
			AllowCheckIn: true}, &term{is: isPool})
	}
	for _, n := range sortedNames(l.Meters) {
		m, unit := l.Meters[n], UnitCount
		if KindOf(m.Unit) == KindAmount {
			unit = m.Unit
		}
		switch m.Resets {
		case enforcer.ResetsWeekly:
			v.ConsumptionConfiguration.RenewType = RenewWeekly
		case enforcer.ResetsMonthly:
			v.ConsumptionConfiguration.RenewType = RenewMonthly
		}
		v.put(Entitlement{Name: n, Unit: unit, MaxCount: countOf(m.Max), Overage: m.Overage != 0}, &term{is: isMeter})
	}
	for _, n := range sortedNames(l.Features) {
		f := l.Features[n]
		e, t := Entitlement{Name: n, Unit: UnitNone}, &term{on: on(verdict, n, f)}
		switch {
		case f.Kind == enforcer.KindNumber && KindOf(f.Unit) == KindRate && f.Number >= 0 && f.Number < math.MaxInt64/2:
			most := int64(f.Number)
			e.Unit, e.MaxCount, t.is, t.most = f.Unit, &most, isRate, most
		case f.Kind == enforcer.KindNumber:
			e.Value = strconv.FormatFloat(f.Number, 'f', -1, 64)
		case f.Kind == enforcer.KindText:
			e.Value = f.Text
		case t.on:
			e.Value = "Enabled"
		default:
			e.Value = "Disabled"
		}
		v.put(e, t)
	}
}

func (v *view) put(e Entitlement, t *term) {
	t.name, t.unit, t.value = e.Name, e.Unit, e.Value
	v.Entitlements, v.terms = append(v.Entitlements, e), append(v.terms, t)
}

// on reports whether a feature of a licence is on. The verdict's value takes precedence over the licence's own.
func on(v *enforcer.Verdict, name string, own enforcer.Value) bool {
	if said, ok := v.Features[name]; ok {
		own = said
	}
	return own.Kind != enforcer.KindBool || own.Bool
}

func countOf(l enforcer.Limit) *int64 {
	n := int64(l.Min(enforcer.MaxCount))
	return &n
}

func sortedNames[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

func statusOf(inForce bool, c enforcer.Code) string {
	switch {
	case inForce:
		return StatusAvailable
	case c == enforcer.Expired:
		return "EXPIRED"
	case c == enforcer.NotYetValid, c == enforcer.Preparing:
		return "PENDING_AVAILABLE"
	case c == enforcer.Suspended, c == enforcer.Banned:
		return "SUSPENDED"
	case c == enforcer.Revoked:
		return "DELETED"
	}
	return "DEACTIVATED"
}

// term returns the entitlement that a checkout names; nil: the licence has none. The entitlements of a beneficiary
// other than the licence's own have the prefix of the beneficiary's name and a slash.
func (v *view) term(name, beneficiary string) *term {
	want := name
	if beneficiary != "" && beneficiary != v.Beneficiary {
		want = beneficiary + "/" + name
	}
	for i := range v.Entitlements {
		if e := &v.Entitlements[i]; e.Name == want || want != name && v.terms[i].name == TermName(want) {
			return v.terms[i]
		}
	}
	return nil
}

// serves reports whether the licence has anything for a beneficiary.
func (v *view) serves(beneficiary string, asked []EntitlementData) bool {
	return beneficiary == "" || beneficiary == v.Beneficiary ||
		slices.ContainsFunc(v.Entitlements, func(e Entitlement) bool {
			return strings.HasPrefix(e.Name, beneficiary+"/")
		}) ||
		slices.ContainsFunc(asked, func(e EntitlementData) bool { return v.term(e.Name, beneficiary) != nil })
}

// discreet returns the licence without secrets and e-mail addresses, which products need not see. If that changes an
// ARN or a fingerprint, callers may use the changed form.
func (v *view) discreet() License { return redact.Shape(v.License) }

// same reports whether a caller names a text, in its own form or in the redacted one.
func same(text, said string) bool { return said == text || said == redact.Text(text) }

// byArn returns the licence with an ARN; nil: there is none.
func (h *local) byArn(arn string) *view {
	for _, v := range h.views() {
		if same(v.LicenseArn, arn) {
			return v
		}
	}
	return nil
}

// find returns the licence for a checkout, or the reason that there is none.
func (h *local) find(sku, fingerprint, beneficiary string, asked []EntitlementData) (*view, *Fault) {
	missing := func(format string, args ...any) (*view, *Fault) {
		f := invalid(format, args...)
		f.Code = ErrResourceNotFound
		return nil, f
	}
	var bad *view
	product := false
	for _, v := range h.views() {
		switch {
		case v.ProductSKU != sku:
		case !same(v.Issuer.KeyFingerprint, fingerprint):
			product = true
		case !v.inForce:
			bad = cmp.Or(bad, v)
		case !v.serves(beneficiary, asked):
			return missing(
				"Licence %s has nothing for beneficiary %q: it names another one, and has no entitlements under this "+
					"name.", v.LicenseArn, plugin.Short(beneficiary))
		default:
			return v, nil
		}
	}
	switch {
	case bad != nil:
		return missing("Licence %s cannot be consumed: %s.", bad.LicenseArn, strings.TrimSuffix(bad.why, "."))
	case product:
		return missing(
			"The licence for product %q is of another issuer than this KeyFingerprint names; ListReceivedLicenses "+
				"shows its issuer.", plugin.Short(sku))
	}
	return missing("There is no licence for product %q here; the agent's `status` on the host lists the licences.",
		plugin.Short(sku))
}

func (h *local) getLicense(r *LicenseRequest) (any, *Fault) {
	v := h.byArn(r.LicenseArn)
	if v == nil || r.Version != "" && r.Version != cmp.Or(v.Version, "1") {
		return nil, &Fault{ErrInvalidParameter, "There is no such licence, or version of it, here."}
	}
	l := v.discreet()
	l.ReceivedMetadata = nil
	return LicenseResponse{l}, nil
}

// getUsage answers with the consumption, so that MaxCount less ConsumedValue is available here. The part of a site's
// total that is not this agent's counts as consumed.
func (h *local) getUsage(r *LicenseRequest) (any, *Fault) {
	v := h.byArn(r.LicenseArn)
	if v == nil {
		return nil, &Fault{ErrInvalidParameter, "There is no such licence here."}
	}
	pools := map[string]enforcer.PoolStatus{}
	for _, p := range h.Pools() {
		pools[p.Name] = p
	}
	out := UsageResponse{}
	for i, e := range v.Entitlements {
		u := EntitlementUsage{Name: redact.Text(e.Name), Unit: e.Unit, ConsumedValue: "0"}
		if e.MaxCount != nil {
			u.MaxCount = strconv.FormatInt(*e.MaxCount, 10)
		}
		if p, ok := pools[v.terms[i].name]; ok && v.inForce && (v.terms[i].is == isPool || v.terms[i].is == isMeter) {
			used := p.InUse
			if p.Limit != enforcer.Unlimited && p.Budget != enforcer.Unlimited {
				used += max(0, int64(p.Limit-p.Budget))
			}
			u.ConsumedValue, u.MaxCount = strconv.FormatInt(used, 10), strconv.FormatInt(*countOf(p.Limit), 10)
		}
		out.LicenseUsage.EntitlementUsages = append(out.LicenseUsage.EntitlementUsages, u)
	}
	return out, nil
}

func (h *local) listReceived(r *ListRequest) (any, *Fault) {
	after, err := base64.RawURLEncoding.DecodeString(r.NextToken)
	if err != nil {
		return nil, &Fault{ErrInvalidParameter, "NextToken is not from an answer of this agent."}
	}
	most := 100
	if r.MaxResults != nil {
		most = *r.MaxResults
	}
	var all []License
	for _, v := range h.views() {
		of := map[string]string{FilterSKU: v.ProductSKU, FilterStatus: v.Status,
			FilterFingerprint: v.Issuer.KeyFingerprint, FilterIssuer: v.Issuer.Name, FilterBeneficiary: v.Beneficiary}
		if len(r.LicenseArns) > 0 && !slices.Contains(r.LicenseArns, v.LicenseArn) ||
			slices.ContainsFunc(r.Filters, func(f Filter) bool { return !slices.Contains(f.Values, of[f.Name]) }) {
			continue
		}
		all = append(all, v.discreet())
	}
	slices.SortFunc(all, func(a, b License) int { return strings.Compare(a.LicenseArn, b.LicenseArn) })
	from := 0
	if len(after) > 0 {
		for from < len(all) && all[from].LicenseArn <= string(after) {
			from++
		}
	}
	out := ListResponse{Licenses: append([]License{}, all[from:min(len(all), from+most)]...)}
	if from+most < len(all) {
		out.NextToken = base64.RawURLEncoding.EncodeToString([]byte(out.Licenses[len(out.Licenses)-1].LicenseArn))
	}
	return out, nil
}
