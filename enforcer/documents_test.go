package enforcer

import (
	"slices"
	"testing"
	"time"
)

// ruled is what a verdict says of several documents.
type ruled struct {
	code    Code
	inForce []string // the base first
	limit   Limit
	others  map[string]Code
	warn    []WarningCode
	until   time.Time
	covered time.Time
}

// documentsRow is a set of documents and what the verdict says of them.
type documentsRow struct {
	name string
	docs []Document
	want ruled
}

var addOn = role(RoleAddOn)

// addOnRows tell what an add-on adds, and to which base.
func addOnRows() []documentsRow {
	adds := func(to string) func(*License) { return func(l *License) { l.Role, l.AddOnTo = RoleAddOn, to } }
	return []documentsRow{
		{"add-ons sum", []Document{doc("a.lic"), doc("b.lic", id("L2"), addOn, streams(3)),
			doc("c.lic", id("L3"), adds("L1"), streams(2))},
			ruled{code: Valid, inForce: []string{"a.lic", "b.lic", "c.lic"}, limit: 9}},
		{"one add-on twice counts once", []Document{doc("a.lic"), doc("b.lic", id("L2"), addOn, streams(3)),
			doc("c.lic", id("L2"), addOn, streams(3), issued(0))},
			ruled{code: Valid, inForce: []string{"a.lic", "c.lic"}, limit: 7,
				others: map[string]Code{"b.lic": Superseded}}},
		{"an add-on to another base", []Document{doc("a.lic"), doc("b.lic", id("L2"), adds("L9"), streams(3))},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Valid},
				warn: []WarningCode{WarnAddOnUnused}}},
		{"an add-on that has expired", []Document{doc("a.lic"), doc("b.lic", id("L2"), addOn, expires(-aDay))},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Expired},
				warn: []WarningCode{WarnDocument}}},
		{"an add-on that ends", []Document{doc("a.lic"), doc("b.lic", id("L2"), addOn, expires(60*aDay))},
			ruled{code: Valid, inForce: []string{"a.lic", "b.lic"}, limit: 8, until: noon.Add(60 * aDay)}},
		{"a test add-on adds nothing to production", []Document{doc("a.lic"), doc("b.lic", id("L2"), addOn, testOnly)},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": TestLicense},
				warn: []WarningCode{WarnTestLicense}}},
		{"a production add-on adds to a test base", []Document{doc("a.lic", testOnly), doc("b.lic", id("L2"), addOn)},
			ruled{code: Valid, inForce: []string{"a.lic", "b.lic"}, limit: 8, warn: []WarningCode{WarnTestLicense}}},
		{"another system's add-on adds nothing", []Document{doc("a.lic"), doc("b.lic", id("L2"), addOn, of("other"))},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Valid},
				warn: []WarningCode{WarnAddOnUnused}}},
	}
}

// preferenceRows tell which of several bases is in force.
func preferenceRows() []documentsRow {
	return []documentsRow{
		{"two bases never sum: the latest issued counts",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), issued(-aDay), streams(3))},
			ruled{code: Valid, inForce: []string{"b.lic"}, limit: 3, others: map[string]Code{"a.lic": Superseded}}},
		{"the same issue: one of them, by name", []Document{doc("b.lic", id("L2"), streams(3)), doc("a.lic")},
			ruled{code: Valid, inForce: []string{"b.lic"}, limit: 3, others: map[string]Code{"a.lic": Superseded}}},
		{"one licence twice", []Document{doc("a.lic"), doc("b.lic", issued(-aDay), streams(9))},
			ruled{code: Valid, inForce: []string{"b.lic"}, limit: 9, others: map[string]Code{"a.lic": Superseded}}},
		{"production before test, whatever the issue",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), testOnly, issued(0))},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": TestLicense},
				warn: []WarningCode{WarnTestLicense}}},
		{"a test licence where there is no other", []Document{doc("a.lic", testOnly)},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, warn: []WarningCode{WarnTestLicense}}},
		{"paid before free, whatever the issue",
			[]Document{doc("a.lic", expires(60*aDay)), doc("b.lic", id("L2"), role(RoleFree), issued(0), streams(1))},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Superseded},
				until: noon.Add(60 * aDay)}},
		{"free takes over", []Document{doc("a.lic", expires(-aDay)),
			doc("b.lic", id("L2"), role(RoleFree), streams(1))},
			ruled{code: Valid, inForce: []string{"b.lic"}, limit: 1, others: map[string]Code{"a.lic": Expired},
				warn: []WarningCode{WarnDocument}}},
		{"what is in grace comes after what is not",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), issued(0), expires(-1), grace(aDay), streams(9))},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Superseded}}},
		{"grace before free tier",
			[]Document{doc("a.lic", expires(-aDay), grace(2*aDay)), doc("b.lic", id("L2"), role(RoleFree), streams(1))},
			ruled{code: ValidInGrace, inForce: []string{"a.lic"}, limit: 4,
				others: map[string]Code{"b.lic": Superseded},
				warn:   []WarningCode{WarnInGrace}, until: noon.Add(aDay)}},
		{"a broken document beside a good one", []Document{broken("0.lic", BadSignature), doc("a.lic")},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"0.lic": BadSignature},
				warn: []WarningCode{WarnDocument}}},
		{"the nearest to being good is the reason", []Document{broken("0.lic", Preparing), doc("a.lic", expires(-aDay)),
			doc("b.lic", id("L2"), func(l *License) {
				l.Revoked = true
			})},
			ruled{code: Expired, others: map[string]Code{"0.lic": Preparing, "b.lic": Revoked},
				warn: []WarningCode{WarnDocument}}},
	}
}

// replacementRows tell what one document does to another: it renews, retires or revokes it.
func replacementRows() []documentsRow {
	return []documentsRow{
		{"retired by id", []Document{doc("a.lic", issued(0)),
			doc("b.lic", id("L2"), supersedes("L0", "L1"), streams(3))},
			ruled{code: Valid, inForce: []string{"b.lic"}, limit: 3, others: map[string]Code{"a.lic": Superseded}}},
		{"retired by what starts later: not yet",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), supersedes("L1"), starts(aDay), streams(3), issued(0))},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": NotYetValid},
				until: noon.Add(aDay), warn: []WarningCode{WarnGrantsLess}}},
		{"retired stays retired", []Document{doc("a.lic"), doc("b.lic", id("L2"), supersedes("L1"), expires(-aDay))},
			ruled{code: Expired, others: map[string]Code{"a.lic": Superseded, "b.lic": Expired},
				warn: []WarningCode{}}},
		{"another system's ids are others",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), supersedes("L1"), role(RoleFree), of("other"))},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Superseded}}},
		{"another system's notice revokes nothing",
			[]Document{doc("a.lic"), doc("b.lic", id("N"), notice("L1"), of("other"))},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Valid}}},
		{"a test licence retires no production licence",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), supersedes("L1"), testOnly, issued(0), streams(1))},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": TestLicense},
				warn: []WarningCode{WarnTestLicense}}},
		{"a test key retires no production licence",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), supersedes("L1"), testKey, issued(0), streams(1))},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": TestLicense},
				warn: []WarningCode{WarnTestLicense}}},
		{"a test key's notice revokes no production licence",
			[]Document{doc("a.lic"), doc("b.lic", id("N"), notice("L1"), testKey)},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": Valid}}},
		{"a test key's notice revokes a test licence",
			[]Document{doc("a.lic", testKey), doc("b.lic", id("N"), notice("L1"), testKey)},
			ruled{code: Revoked, others: map[string]Code{"a.lic": Revoked}}},
		{"a production notice revokes a test licence",
			[]Document{doc("a.lic", testKey), doc("b.lic", id("N"), notice("L1"))},
			ruled{code: Revoked, others: map[string]Code{"a.lic": Revoked}}},
		{"a production licence retires a test licence",
			[]Document{doc("a.lic", testOnly, issued(0)), doc("b.lic", id("L2"), supersedes("L1"), streams(3))},
			ruled{code: Valid, inForce: []string{"b.lic"}, limit: 3, others: map[string]Code{"a.lic": Superseded}}},
		{"a vendor's next key renews a licence", []Document{doc("a.lic", id("L2"), addOn, streams(3)), doc("b.lic"),
			doc("c.lic", id("L2"), addOn, streams(3), issued(0), key("2027-a"))},
			ruled{code: Valid, inForce: []string{"b.lic", "c.lic"}, limit: 7,
				others: map[string]Code{"a.lic": Superseded}}},
		{"a vendor's next key retires a licence",
			[]Document{doc("a.lic", issued(0)), doc("b.lic", id("L2"), supersedes("L1"), streams(3), key("2027-a"))},
			ruled{code: Valid, inForce: []string{"b.lic"}, limit: 3, others: map[string]Code{"a.lic": Superseded}}},
		{"a foreign document retires nothing",
			[]Document{doc("a.lic"), doc("b.lic", id("L2"), supersedes("L1"), func(l *License) {
				l.Product = "other"
			})},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": ProductMismatch},
				warn: []WarningCode{WarnDocument}}},
		{"a document does not retire itself", []Document{doc("a.lic", supersedes("L1"))},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4}},
		{"the renewal waits as next", []Document{doc("a.lic", expires(60*aDay)),
			doc("b.lic", issued(0), starts(59*aDay), expires(400*aDay), streams(5))},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": NotYetValid},
				until: noon.Add(59 * aDay), covered: noon.Add(400 * aDay)}},
		{"a gap before the renewal",
			[]Document{doc("a.lic", expires(60*aDay)), doc("b.lic", issued(0), starts(61*aDay))},
			ruled{code: Valid, inForce: []string{"a.lic"}, limit: 4, others: map[string]Code{"b.lic": NotYetValid},
				until: noon.Add(60 * aDay), covered: noon.Add(60 * aDay)}},
	}
}

func TestDocumentsTogether(t *testing.T) {
	for _, row := range slices.Concat(addOnRows(), preferenceRows(), replacementRows()) {
		t.Run(row.name, func(t *testing.T) { row.check(t) })
	}
}

func (row documentsRow) check(t *testing.T) {
	v := Judge(factsWith(row.docs...), noon)
	if v.Code != row.want.code {
		t.Fatalf("%s: %s; want %s", v.Code, v.Reason, row.want.code)
	}
	var inForce []string
	for i, j := range v.Licenses {
		if j.InForce {
			inForce = append(inForce, j.Document)
			if i >= len(inForce) {
				t.Error("what is in force does not come first")
			}
		}
	}
	if !slices.Equal(inForce, row.want.inForce) {
		t.Errorf("in force %v, want %v", inForce, row.want.inForce)
	}
	if v.Good() {
		wantLimit(t, v, "streams", row.want.limit, row.want.limit)
	}
	for name, code := range row.want.others {
		if j := judged(t, v, name); j.Code != code || j.InForce {
			t.Errorf("%s: %s (%s), want %s", name, j.Code, j.Reason, code)
		}
		if j := judged(t, v, name); j.Next != (code == NotYetValid) {
			t.Errorf("%s: next is %t", name, j.Next)
		}
	}
	var warnings []WarningCode
	for _, w := range v.Warnings {
		if !slices.Contains(warnings, w.Code) {
			warnings = append(warnings, w.Code)
		}
	}
	if !slices.Equal(warnings, row.want.warn) && (len(warnings) > 0 || len(row.want.warn) > 0) {
		t.Errorf("warnings %v, want %v", v.Warnings, row.want.warn)
	}
	if !v.Until.Equal(row.want.until) {
		t.Errorf("until %v, want %v", v.Until, row.want.until)
	}
	if !row.want.covered.IsZero() && !v.CoveredUntil.Equal(row.want.covered) {
		t.Errorf("covered until %v, want %v", v.CoveredUntil, row.want.covered)
	}
}
