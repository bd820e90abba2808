package enforcer

import (
	"fmt"
	"time"
)

// DenialCode is the stable code of a refusal, the same in errors, wire, metrics and docs.
type DenialCode string

// The denial codes.
const (
	NoSlots        DenialCode = "no_slots"
	NotShared      DenialCode = "not_shared"
	MeterEmpty     DenialCode = "meter_empty"
	LicenseMissing DenialCode = "license_missing"
	LicenseInvalid DenialCode = "license_invalid"
	LicenseExpired DenialCode = "license_expired"
	PoolUnknown    DenialCode = "pool_unknown"
	LeaseUnknown   DenialCode = "lease_unknown"
	NotHolder      DenialCode = "not_holder"
	DeniedByPolicy DenialCode = "denied_by_policy"
	HeldOff        DenialCode = "held_off"
	Forbidden      DenialCode = "forbidden"
	TokenReused    DenialCode = "token_reused"
	TooLarge       DenialCode = "too_large"
	BadRequest     DenialCode = "bad_request"
	Storage        DenialCode = "storage"
	Draining       DenialCode = "draining"
	RateLimited    DenialCode = "rate_limited"
)

// Codes of refusals of what an admin asks of licences; no acquire is denied with them.
const (
	DocumentUnknown DenialCode = "document_unknown"
	DocumentRefused DenialCode = "document_refused" // it does not verify, or is hopeless here
	// EmergencyRefused says that the licence grants no emergency, or none any more, or needs none.
	EmergencyRefused DenialCode = "emergency_refused"
)

// DenialCodes returns every code that a request for slots or draws is denied with.
func DenialCodes() []DenialCode {
	return []DenialCode{NoSlots, NotShared, MeterEmpty, LicenseMissing, LicenseInvalid, LicenseExpired, PoolUnknown,
		LeaseUnknown, NotHolder, DeniedByPolicy, HeldOff, Forbidden, TokenReused, TooLarge, BadRequest, Storage,
		Draining,
		RateLimited}
}

// Denial is a refusal: an answer, not a failure. It is an error so that callers may pass it on as one.
type Denial struct {
	Code   DenialCode
	Detail string // one sentence for people
	Hint   string // what to do; may be empty
	Field  string // the request's field at fault; may be empty
	Rule   string // the name of the site's rule that denies it; may be empty
	Pool   string // the pool concerned; may be empty

	Limit    Limit // of Pool, overage included; only where InUse says something
	InUse    int64
	HasUsage bool // Limit and InUse are meaningful

	// Site is how many slots or draws of Pool the whole site has, where this agent hands out a share of them and the
	// share is what is too small; else zero.
	Site Limit

	// Next is when the next slot of Pool comes free unless its lease is renewed, or when a hold-off ends; zero: not
	// known.
	Next       time.Time
	NextHolder *Holder  // the holder of that lease; for admins only
	Verdict    *Verdict // for the license codes

	// MayGrow says that waiting may help a request for draws: the agent draws the meter from a share of a site's, which
	// grows on demand and could cover the request, or others wait for draws of the meter.
	MayGrow bool

	Idle int64 // slots of Pool that other hosts of the site have and nobody uses, where that is known

	Waited time.Duration // how long the request had waited

	// Late says that the request was granted, and the grant withdrawn before anybody knew of it, for what it was
	// granted from was over. See [Acquire.Again].
	Late bool

	waits bool // waiting may help, as it does where the slots are in use

	spent string // of a site's meter: what to do where no host has draws left to take
}

// Elsewhere returns the denial with where the site's other slots are: out of them other hosts have, and of these idle
// are in nobody's use, and which rule for hosts leaves this one no more; empty: none does. Only a denial for want of a
// share has anything to say of them; any other is returned as it is. Of a meter, out is what other hosts have taken,
// where nothing is left to take.
func (d *Denial) Elsewhere(out, idle int64, rule string) *Denial {
	if d.Site == 0 || out <= 0 && rule == "" {
		return d
	}
	said := *d
	if d.Code == MeterEmpty { // of which nothing comes back
		said.Detail = fmt.Sprintf("%s; other hosts have taken %d, and none is left to take", d.Detail, out)
		said.Hint = d.spent
		return &said
	}
	said.Idle = idle
	if rule != "" {
		said.Rule = rule
		said.Detail = fmt.Sprintf("%s; other hosts have %d, and rule %s of the site leaves this host no more", d.Detail,
			out, rule)
		said.Hint = "wait (wait_seconds) until another host of the rule releases some, or ask who sets the site's rules"
		return &said
	}
	if idle == 0 {
		said.Detail = fmt.Sprintf("%s; other hosts have %d, and use them", d.Detail, out)
		said.Hint = "wait (wait_seconds) until another host releases some, or have the licence extended"
		return &said
	}
	said.Detail = fmt.Sprintf("%s; other hosts have %d, of which %d lie idle", d.Detail, out, idle)
	said.Hint = "wait (wait_seconds) some seconds, or try again in a moment: other hosts give idle slots up when asked"
	return &said
}

// Drained returns the denial with the word that an operator has this host give its slots of the site back and take
// none. end says what ends that. Only a denial for want of a share has anything to say of it; any other is returned as
// it is.
func (d *Denial) Drained(end string) *Denial {
	if d.Code != NotShared && (d.Code != NoSlots || d.Site == 0) {
		return d
	}
	said := *d
	said.Detail += "; an operator has this host give its slots of the site back and take none"
	said.Hint = "this host gets no more slots, however long an acquire waits, until an operator ends that: " + end
	return &said
}

// Error returns the detail.
func (d *Denial) Error() string { return d.Detail }
