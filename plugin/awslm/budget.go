package awslm

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	lm "github.com/aws/aws-sdk-go-v2/service/licensemanager"
	"github.com/aws/aws-sdk-go-v2/service/licensemanager/types"
	"github.com/aws/smithy-go/middleware"
	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// maxBlockID is the length, in bytes, of a block's id: see [plugin.Block.Check].
const maxBlockID = 256

// CheckOut takes a block of slots: a provisional checkout, with a consumption token of its own. If fewer slots are free
// than the request asks for, but at least AtLeast, it takes those.
func (c *Client) CheckOut(ctx context.Context, r *plugin.CheckOut) (*plugin.Block, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	d, err := read(r.Document)
	if err != nil {
		return nil, err
	}
	if d.borrowed != nil {
		return nil, misconfigured("", "a borrowed licence has all of its slots already, and gives no blocks")
	}
	e := d.license.find(r.Pool, (*Entitlement).isPool)
	if e == nil || r.Slots < 1 || r.AtLeast < 0 || r.AtLeast > r.Slots {
		return nil, misconfigured("", "licence %s has no pool %q that gives %d slots, at least %d",
			d.license.LicenseArn, plugin.Short(r.Pool), r.Slots, r.AtLeast)
	}
	least := cmp.Or(r.AtLeast, r.Slots)
	got, err := c.take(ctx, d.license, &r.Request, Provisional, e, r.Slots, least, r.Token)
	if denied, ok := err.(*denial); ok {
		var room int64
		if room, err = c.why(ctx, d.license, e, r.Slots, denied); room >= least && room < r.Slots {
			got, err = c.take(ctx, d.license, &r.Request, Provisional, e, room, least, r.Token)
		}
	}
	if denied, ok := err.(*denial); ok { // others took them meanwhile
		err = denied.full(r.Pool)
	}
	if err != nil {
		return nil, err
	}
	span := min(got.span, r.For)
	if span <= 0 {
		c.drop(ctx, got.token)
		return nil, plugin.Transiently(
			"%s gave slots whose time is over; check whether the clock here differs from the service's", OpCheckout)
	}
	kept := readTokens(r.State, c.cfg.Now())
	id := kept.name(got.n, got.token, r.Pool, c.cfg.Now().Add(got.span))
	return &plugin.Block{ID: id, Pool: r.Pool, Slots: got.n, For: span, State: kept.encode()}, nil
}

// Extend renews a block's time. Its size stays, because a checkout's size cannot change. The service may replace the
// token; the state carries the new one.
func (c *Client) Extend(ctx context.Context, r *plugin.Extend) (*plugin.Block, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	kept := readTokens(r.State, c.cfg.Now())
	n, token, pool, err := kept.find(r.Block)
	if err != nil {
		return nil, err
	}
	api, err := c.client(ctx)
	if err != nil {
		return nil, err
	}
	out, err := api.ExtendLicenseConsumption(ctx,
		&lm.ExtendLicenseConsumptionInput{LicenseConsumptionToken: aws.String(token)})
	switch {
	case is(err, ErrResourceNotFound, ErrInvalidParameter):
		// A suspension and the end of the contract have the same code.
		if bad := c.badNow(ctx, r.LicenseID); bad != nil {
			return nil, bad
		}
		return nil, &plugin.Error{Class: plugin.Transient, SystemCode: plugin.SystemLapsed,
			Reason: "the checkout is over, and others may hold its slots: " + reason(err)}
	case err != nil:
		return nil, classify(ctx, OpExtend, err, err)
	}
	span := min(c.until(out.Expiration, nil, out.ResultMetadata), r.For)
	if span <= 0 || aws.ToString(out.LicenseConsumptionToken) == "" {
		return nil, plugin.Transiently(
			"%s answered without a token or a future time: it is not known whether the checkout goes on", OpExtend)
	}
	kept.set(r.Block, *out.LicenseConsumptionToken, c.cfg.Now().Add(span))
	return &plugin.Block{ID: r.Block, Pool: pool, Slots: n, For: span, State: kept.encode()}, nil
}

// Return checks a block in.
func (c *Client) Return(ctx context.Context, r *plugin.Return) error {
	ctx, cancel := c.within(ctx)
	defer cancel()
	_, token, _, err := readTokens(r.State, c.cfg.Now()).find(r.Block)
	if e, ok := err.(*plugin.Error); ok && e.SystemCode == plugin.SystemLapsed {
		return nil
	}
	if err != nil {
		return err
	}
	return c.giveBack(ctx, token)
}

// giveBack checks a consumption token in. It succeeds if the checkout is over.
func (c *Client) giveBack(ctx context.Context, token string) error {
	api, err := c.client(ctx)
	if err != nil {
		return err
	}
	in := &lm.CheckInLicenseInput{LicenseConsumptionToken: aws.String(token)}
	if c.cfg.Beneficiary != "" {
		in.Beneficiary = aws.String(c.cfg.Beneficiary)
	}
	_, err = api.CheckInLicense(ctx, in)
	if err == nil || is(err, ErrResourceNotFound) {
		return nil
	}
	return classify(ctx, OpCheckIn, err, err)
}

// drop tries to give an unusable checkout back. If that fails, the checkout ends with its time.
func (c *Client) drop(ctx context.Context, token string) {
	if token == "" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.TryWithin)
	defer cancel()
	_ = c.giveBack(ctx, token)
}

// Draw takes draws of a meter permanently: a perpetual checkout. Its ClientToken derives from the request's Token, so a
// repetition after a crash or a lost answer draws once.
func (c *Client) Draw(ctx context.Context, r *plugin.Draw) (*plugin.Drawn, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	d, err := read(r.Document)
	if err != nil {
		return nil, err
	}
	var e *Entitlement
	if d.borrowed == nil {
		e = d.license.find(r.Meter, (*Entitlement).isMeter)
	}
	if e == nil || r.N < 1 || r.Token == "" {
		return nil, misconfigured("", "licence %s has no meter %q that gives %d draws", r.LicenseID,
			plugin.Short(r.Meter), r.N)
	}
	got, err := c.take(ctx, d.license, &r.Request, Perpetual, e, r.N, 1, r.Token)
	if denied, ok := err.(*denial); ok {
		_, err = c.why(ctx, d.license, e, r.N, denied)
	}
	if err != nil {
		return nil, err
	}
	return &plugin.Drawn{Meter: r.Meter, N: got.n, State: r.State}, nil
}

// taken is a checkout that was granted.
type taken struct {
	n     int64
	token string
	span  time.Duration
}

// denial is a refused checkout. The service does not give the reason.
type denial struct {
	code, message string
}

func (d *denial) Error() string { return d.code + ": " + d.message }

func (d *denial) full(pool string) *plugin.Error {
	return &plugin.Error{Class: plugin.Transient, SystemCode: plugin.SystemFull,
		Reason: fmt.Sprintf("%s: others have all of it (%s)", pool, d.code),
		Hint:   "try again when others give some back"}
}

// take checks n of one entitlement out, and compares the answer with the request. An answer without the entitlement, or
// with less than the least, grants nothing. After an answer without a token it is not known whether anything was
// granted.
func (c *Client) take(ctx context.Context, l *License, r *plugin.Request, kind string, e *Entitlement, n, least int64,
	token string) (*taken, error) {
	api, err := c.client(ctx)
	if err != nil {
		return nil, err
	}
	in := &lm.CheckoutLicenseInput{ProductSKU: aws.String(l.ProductSKU),
		KeyFingerprint: aws.String(l.Issuer.KeyFingerprint), CheckoutType: types.CheckoutType(kind),
		Entitlements: []types.EntitlementData{{Name: aws.String(e.Name), Unit: types.EntitlementDataUnit(e.Unit),
			Value: aws.String(strconv.FormatInt(n, 10))}},
		NodeId:      aws.String(c.node),
		ClientToken: clientTokenOf(kind, r, l.LicenseArn, e.Name, strconv.FormatInt(n, 10), token)}
	if c.cfg.Beneficiary != "" {
		in.Beneficiary = aws.String(c.cfg.Beneficiary)
	}
	out, err := api.CheckoutLicense(ctx, in)
	switch {
	case is(err, ErrNoEntitlements, ErrEntitlementNot, ErrResourceNotFound):
		return nil, &denial{apiCode(err), reason(err)}
	case err != nil:
		return nil, classify(ctx, OpCheckout, err, err)
	}
	got := &taken{token: aws.ToString(out.LicenseConsumptionToken),
		span: c.until(out.Expiration, out.IssuedAt, out.ResultMetadata)}
	switch arn := aws.ToString(out.LicenseArn); {
	case got.token == "":
		return nil, plugin.Transiently(
			"%s answered without a consumption token: it is not known whether anything was checked out", OpCheckout)
	case arn != "" && arn != l.LicenseArn && kind == Provisional: // a draw counts from either licence
		c.drop(ctx, got.token)
		return nil, misconfigured(
			"the service takes the latest licence of one SKU: deactivate the grant of one, or remove the other's "+
				"document",
			"AWS checked out of licence %s instead of %s, which has the same SKU", clip(arn, 200), l.LicenseArn)
	}
	i := slices.IndexFunc(out.EntitlementsAllowed, func(a types.EntitlementData) bool {
		return aws.ToString(a.Name) == e.Name
	})
	if i < 0 {
		c.drop(ctx, got.token)
		return nil, plugin.Transiently("%s answered, and did not allow entitlement %q", OpCheckout,
			plugin.Short(e.Name))
	}
	a := out.EntitlementsAllowed[i]
	got.n, err = ParseValue(aws.ToString(a.Value))
	if err != nil || string(a.Unit) != e.Unit || got.n > n || got.n < least {
		if kind == Provisional {
			c.drop(ctx, got.token)
		}
		return nil, plugin.Transiently("%s answered with another quantity or unit of entitlement %q than the request's",
			OpCheckout, plugin.Short(e.Name))
	}
	return got, nil
}

// why finds the reason of a denial: others have the slots, and room are left; or the licence does not give the
// entitlement at all. The error is never nil.
func (c *Client) why(ctx context.Context, l *License, e *Entitlement, n int64, d *denial) (room int64, err error) {
	if d.code == ErrResourceNotFound {
		if bad := c.badNow(ctx, l.LicenseArn); bad != nil {
			return 0, bad
		}
	}
	api, err := c.client(ctx)
	if err != nil {
		return 0, err
	}
	full := d.full(e.Name)
	out, err := api.GetLicenseUsage(ctx, &lm.GetLicenseUsageInput{LicenseArn: aws.String(l.LicenseArn)})
	switch {
	case is(err, ErrAccessDenied, ErrAuthorization, "AccessDenied"):
		full.Hint = "allow the role " + OpGetUsage +
			": without it, an exhausted entitlement and one that the licence lacks look alike"
		return 0, full
	case err != nil || out.LicenseUsage == nil:
		return 0, full
	}
	for _, u := range out.LicenseUsage.EntitlementUsages {
		if aws.ToString(u.Name) != e.Name || string(u.Unit) != e.Unit {
			continue
		}
		used, err1 := ParseValue(aws.ToString(u.ConsumedValue))
		most, err2 := ParseValue(aws.ToString(u.MaxCount))
		if err1 != nil || err2 != nil {
			return 0, full
		}
		if room = max(0, most-used); room < n && !e.Overage {
			full.Reason = fmt.Sprintf("%s: %d of %d are in use, and the request needs %d more", e.Name, used, most, n)
			return room, full
		}
		// There is room. The service refuses for a while after a grant or a renewal.
		return 0, &plugin.Error{Class: plugin.Transient, SystemCode: d.code,
			Reason: fmt.Sprintf("%s: %d of %d are in use, and still %d were refused "+
				"(%s)", e.Name, used, most, n, d.code)}
	}
	return 0, &plugin.Error{Class: plugin.Misconfigured, SystemCode: d.code,
		Hint: "the next check-in brings the licence's present terms; the seller may have changed them",
		Reason: fmt.Sprintf("the licence does not give entitlement %q in %s (%s)", plugin.Short(e.Name), e.Unit,
			d.code)}
}

// badNow returns the refusal of the licence itself; nil: AWS does not refuse it.
func (c *Client) badNow(ctx context.Context, arn string) error {
	said, err := c.look(ctx, arn)
	if err == nil {
		err = c.good(said.License)
	}
	e, ok := err.(*plugin.Error)
	switch {
	case ok && e.Class == plugin.Refused:
		return e
	case ok && e.SystemCode == ErrResourceNotFound:
		return refused(enforcer.NotFound, ErrResourceNotFound, "ask the seller", "AWS has no licence %s", arn)
	}
	return nil
}

// until returns how long a grant lasts from the sending of the request. It uses the service's own clock, so that a
// wrong clock here changes nothing. The service's time is no earlier than the sending, so the grant ends here no later
// than there.
func (c *Client) until(expiration, issued *string, m middleware.Metadata) time.Duration {
	end, err := ParseTime(aws.ToString(expiration))
	if err != nil || end.IsZero() {
		return 0
	}
	if from, err := ParseTime(aws.ToString(issued)); err == nil && !from.IsZero() {
		return end.Sub(from)
	}
	if at, ok := awsmiddleware.GetServerTime(m); ok && !at.IsZero() {
		return end.Sub(at)
	}
	return end.Sub(c.cfg.Now())
}

// tokens is the upstream's state: the current consumption token of each block whose id does not contain it.
type tokens map[string]kept

type kept struct {
	Token string `json:"t"`
	Until int64  `json:"u"`
}

// readTokens reads the state, without tokens that are over.
func readTokens(state []byte, now time.Time) tokens {
	t := tokens{}
	if len(state) > 0 && json.Unmarshal(state, &t) != nil {
		t = tokens{}
	}
	maps.DeleteFunc(t, func(_ string, k kept) bool { return time.Unix(k.Until, 0).Add(time.Hour).Before(now) })
	return t
}

func (t tokens) encode() []byte {
	if len(t) == 0 {
		return nil
	}
	b, err := json.Marshal(t, json.Deterministic(true))
	if err != nil || len(b) > plugin.MaxState {
		return nil // the checkouts end with their time
	}
	return b
}

// name makes a block's id from its size, token and pool. So a block can be extended and returned even if the state is
// lost.
func (t tokens) name(n int64, token, pool string, until time.Time) string {
	of := func(token string) string { return strconv.FormatInt(n, 10) + "/" + token + "/" + pool }
	id := of(token)
	if len(id) > maxBlockID || strings.ContainsAny(token, "/") || clip(token, len(token)) != token ||
		strings.TrimSpace(token) != token {
		sum := sha256.Sum256([]byte(token))
		id = of("=" + hex.EncodeToString(sum[:16]))
		t.set(id, token, until)
	}
	return id
}

// set stores a block's current token.
func (t tokens) set(id, token string, until time.Time) {
	key := tokenKey(id)
	if parts := strings.SplitN(id, "/", 3); len(parts) == 3 && parts[1] == token {
		delete(t, key)
		return
	}
	t[key] = kept{token, until.Unix()}
}

func tokenKey(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8])
}

// find returns a block's size, current token and pool.
func (t tokens) find(id string) (n int64, token, pool string, err error) {
	parts := strings.SplitN(id, "/", 3)
	if len(parts) == 3 {
		n, err = ParseValue(parts[0])
	}
	if len(parts) < 3 || err != nil || n == 0 {
		return 0, "", "", misconfigured("", "the block is not of this upstream")
	}
	token, pool = parts[1], parts[2]
	if k, ok := t[tokenKey(id)]; ok {
		token = k.Token
	}
	if strings.HasPrefix(token, "=") {
		return 0, "", "", &plugin.Error{Class: plugin.Transient, SystemCode: plugin.SystemLapsed,
			Reason: "the checkout's token is lost; the checkout ends with its time"}
	}
	return n, token, pool, nil
}
