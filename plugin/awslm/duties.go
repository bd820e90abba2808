package awslm

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	lm "github.com/aws/aws-sdk-go-v2/service/licensemanager"
	"github.com/aws/aws-sdk-go-v2/service/licensemanager/types"
	"github.com/go-json-experiment/json"

	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Activate is not asked for; it finds out whether the licence is good.
func (c *Client) Activate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.Heartbeat(ctx, r)
}

// Heartbeat asks for the licence's state. What is checked out has its own heartbeat, which is Extend.
func (c *Client) Heartbeat(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	out, err := c.CheckIn(ctx, r)
	if out != nil {
		out.Document = nil
	}
	return out, err
}

// CheckIn asks for the licence. Where AWS says anything else of it than the document does, a new document is sealed: a
// contract that was prolonged, another version, another number of seats. A borrowed licence needs nobody's word.
func (c *Client) CheckIn(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	d, err := read(r.Document)
	if err != nil {
		return nil, err
	}
	out := &plugin.Reply{State: r.State}
	if d.borrowed != nil {
		return out, ctx.Err()
	}
	said, err := c.look(ctx, d.license.LicenseArn)
	if err == nil {
		err = c.good(said.License)
	}
	if err != nil {
		return nil, err
	}
	if !said.same(d) {
		out.Document, err = c.seal(said)
	}
	return out, err
}

// seal dates a licence by the service's clock, which TLS vouches for, so that one that is wrong here is not sealed as
// the truth.
func (c *Client) seal(s *saying) ([]byte, error) {
	at := s.at
	if at.IsZero() {
		at = c.cfg.Now()
	}
	return seal(c.cfg.Key, s.raw, at)
}

// Deactivate gives a borrowed licence back, where it may be before its time. Of a received one the blocks are given
// back, one by one; it is looked at all the same.
func (c *Client) Deactivate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	d, err := read(r.Document)
	if err != nil {
		return nil, err
	}
	if d.borrowed == nil {
		said, err := c.look(ctx, d.license.LicenseArn)
		if err == nil {
			err = c.good(said.License)
		}
		if err != nil {
			return nil, err
		}
		return &plugin.Reply{}, nil
	}
	if err := c.giveBack(ctx, d.borrowed.LicenseConsumptionToken); err != nil {
		return nil, err
	}
	return &plugin.Reply{}, nil
}

// Refetches reports whether licences are borrowed, which end.
func (c *Client) Refetches(*enforcer.License) bool { return len(c.cfg.Borrow) > 0 }

// Fetch finds the received licence of the SKU and issuer, and seals it; or borrows what is configured.
func (c *Client) Fetch(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	ctx, cancel := c.within(ctx)
	defer cancel()
	said, err := c.find(ctx)
	if err == nil {
		err = c.good(said.License)
	}
	if err != nil {
		return nil, err
	}
	out := &plugin.Reply{}
	if len(c.cfg.Borrow) > 0 {
		out.Document, err = c.borrow(ctx, said.License, r)
	} else {
		out.Document, err = c.seal(said)
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}

// document is what a request's document says. The agent has verified it.
type document struct {
	license  *License // of a received licence
	said     []byte   // the same, as JSON
	borrowed *claims
}

func read(b []byte) (*document, error) {
	bad := misconfigured("remove it; the agent fetches the licence again",
		"the document is no licence of AWS License Manager")
	doc := trim(b)
	if bytes.HasPrefix(doc, []byte("{")) {
		var r response
		if json.Unmarshal(doc, &r) != nil {
			return nil, bad
		}
		doc = []byte(r.SignedToken)
	}
	parts := strings.Split(string(doc), ".")
	if len(parts) != 3 {
		return nil, bad
	}
	payload, ok := part(parts[1])
	if !ok {
		return nil, bad
	}
	if l, e, err := openSealed(payload); err == nil {
		return &document{license: l, said: e.License}, nil
	}
	c := &claims{}
	if json.Unmarshal(payload, c) != nil || c.LicenseConsumptionToken == "" {
		return nil, bad
	}
	return &document{borrowed: c}, nil
}

// saying is a licence as AWS states it.
type saying struct {
	*License
	raw []byte
	at  time.Time // by the service's clock; zero: it did not say
}

// say turns the SDK's form of a licence into the wire's, which keeps all that the SDK knows.
func say(sdk any, at time.Time) (*saying, error) {
	raw, err := json.Marshal(sdk, json.OmitZeroStructFields(true), json.Deterministic(true))
	s := &saying{&License{}, raw, at}
	if err == nil {
		err = json.Unmarshal(raw, s.License)
	}
	if err != nil {
		return nil, plugin.Transiently("what AWS says of the licence cannot be read: %v",
			plugin.JSONFault(err, "member"))
	}
	return s, nil
}

// same reports whether the document says this already, whatever the order of members. One that only the list gives, how
// it was received, is not compared where it was not asked.
func (s *saying) same(d *document) bool {
	norm := func(b []byte) []byte {
		var m map[string]any
		if json.Unmarshal(b, &m) != nil {
			return nil
		}
		if s.ReceivedMetadata == nil {
			delete(m, "ReceivedMetadata")
		}
		out, err := json.Marshal(m, json.Deterministic(true))
		if err != nil {
			return nil
		}
		return out
	}
	a := norm(s.raw)
	return a != nil && bytes.Equal(a, norm(d.said))
}

// look asks for one licence: by the list, which says how it was received too, or where that is not allowed or does not
// have it (the issuer's own) by its ARN.
func (c *Client) look(ctx context.Context, arn string) (*saying, error) {
	api, err := c.client(ctx)
	if err != nil {
		return nil, err
	}
	if list, at, err := c.list(ctx, api, &lm.ListReceivedLicensesInput{LicenseArns: []string{arn}}); err == nil &&
		len(list) == 1 && aws.ToString(list[0].LicenseArn) == arn {
		return say(list[0], at)
	} else if err != nil && !is(err, ErrAccessDenied, ErrAuthorization, "AccessDenied") {
		return nil, classify(ctx, OpListReceived, err, err)
	}
	out, err := api.GetLicense(ctx, &lm.GetLicenseInput{LicenseArn: aws.String(arn)})
	switch {
	case err != nil:
		return nil, classify(ctx, OpGetLicense, err, err)
	case out.License == nil || aws.ToString(out.License.LicenseArn) != arn:
		return nil, plugin.Transiently("%s answered without the licence", OpGetLicense)
	}
	at, _ := awsmiddleware.GetServerTime(out.ResultMetadata)
	return say(out.License, at)
}

// list asks for received licences, page by page, and says when that was by the service's clock.
func (c *Client) list(ctx context.Context, api *lm.Client,
	in *lm.ListReceivedLicensesInput) (all []types.GrantedLicense, at time.Time, err error) {
	in.MaxResults = aws.Int32(100)
	for range 20 {
		out, err := api.ListReceivedLicenses(ctx, in)
		if err != nil {
			return nil, at, err
		}
		at, _ = awsmiddleware.GetServerTime(out.ResultMetadata)
		all = append(all, out.Licenses...)
		if in.NextToken = out.NextToken; aws.ToString(in.NextToken) == "" {
			break
		}
	}
	return all, at, nil
}

// find asks for the licence of the SKU and issuer. Of several the service consumes the latest, so that is the one.
func (c *Client) find(ctx context.Context) (*saying, error) {
	if arn := c.licenseArn(); arn != "" {
		return c.look(ctx, arn)
	}
	api, err := c.client(ctx)
	if err != nil {
		return nil, err
	}
	filters := []types.Filter{{Name: aws.String(FilterSKU), Values: []string{c.cfg.ProductSKU}}}
	if c.cfg.Beneficiary != "" {
		filters = append(filters,
			types.Filter{Name: aws.String(FilterBeneficiary), Values: []string{c.cfg.Beneficiary}})
	}
	list, at, err := c.list(ctx, api, &lm.ListReceivedLicensesInput{Filters: filters})
	if err != nil {
		e := classify(ctx, OpListReceived, err, err)
		if e.Class == plugin.Misconfigured {
			e.Hint = strings.TrimSpace(e.Hint +
				"; or name the licence itself (license_arn), which needs only GetLicense")
		}
		return nil, e
	}
	var found []*saying
	for _, g := range list {
		s, err := say(g, at)
		if err != nil {
			return nil, err
		}
		if s.ProductSKU == c.cfg.ProductSKU && s.Issuer.KeyFingerprint == c.cfg.KeyFingerprint {
			found = append(found, s)
		}
	}
	if len(found) == 0 {
		return nil, misconfigured(
			"has this account accepted and activated the grant, and is it the right account and Region?",
			"this AWS account has received no licence with SKU %s from %s", plugin.Short(c.cfg.ProductSKU),
			clip(c.cfg.KeyFingerprint, 80))
	}
	usable := func(s *saying) int {
		if c.good(s.License) == nil {
			return 1
		}
		return 0
	}
	return slices.MaxFunc(found, func(a, b *saying) int {
		return cmp.Or(usable(a)-usable(b), parsed(a.CreateTime).Compare(parsed(b.CreateTime)),
			cmp.Compare(a.Version, b.Version))
	}), nil
}

// good reports why a licence cannot be consumed as AWS has it.
func (c *Client) good(l *License) error {
	if l.ProductSKU != c.cfg.ProductSKU || l.Issuer.KeyFingerprint != c.cfg.KeyFingerprint {
		return misconfigured("see to product_sku, key_fingerprint and license_arn",
			"licence %s is of another product or issuer than configured", l.LicenseArn)
	}
	switch l.Status {
	case StatusAvailable:
	case "SUSPENDED", "DEACTIVATED":
		return refused(enforcer.Suspended, l.Status, "ask the seller", "AWS says that licence %s is %s", l.LicenseArn,
			l.Status)
	case "EXPIRED":
		return refused(enforcer.Expired, l.Status, "renew the contract", "AWS says that licence %s has expired",
			l.LicenseArn)
	case "PENDING_DELETE", "DELETED":
		return refused(enforcer.Revoked, l.Status, "ask the seller", "AWS says that licence %s was deleted",
			l.LicenseArn)
	default:
		return &plugin.Error{Class: plugin.Transient, SystemCode: clip(l.Status, 64),
			Reason: "licence " + l.LicenseArn + " cannot be used yet: " + clip(l.Status, 64)}
	}
	if l.ReceivedMetadata == nil {
		return nil
	}
	switch s := l.ReceivedMetadata.ReceivedStatus; s {
	case ReceivedActive, "":
		return nil
	case "REJECTED", "DELETED":
		return refused(enforcer.Revoked, s, "ask the seller for a new grant", "the grant of licence %s is %s",
			l.LicenseArn, s)
	case "PENDING_ACCEPT", "DISABLED", "FAILED_WORKFLOW":
		e := misconfigured(
			"accept and activate the grant in the License Manager console; a grant that was accepted is not active yet",
			"the grant of licence %s is %s", l.LicenseArn, s)
		e.SystemCode = s
		return e
	default:
		return &plugin.Error{Class: plugin.Transient, SystemCode: clip(s, 64),
			Reason: "the grant of licence " + l.LicenseArn + " is not settled: " + clip(s, 64)}
	}
}

// borrow takes what is configured for offline use. The token is the document.
func (c *Client) borrow(ctx context.Context, l *License, r *plugin.Request) ([]byte, error) {
	if l.ConsumptionConfiguration.BorrowConfiguration == nil {
		return nil, misconfigured("leave borrow out, or ask the seller for a licence with a borrow configuration",
			"licence %s cannot be borrowed", l.LicenseArn)
	}
	var list []types.EntitlementData
	for _, name := range sortedKeys(c.cfg.Borrow) {
		i := slices.IndexFunc(l.Entitlements, func(e Entitlement) bool { return e.Name == name })
		if i < 0 {
			return nil, misconfigured("see aws license-manager get-license for what it has",
				"licence %s has no entitlement %q to be borrowed", l.LicenseArn, plugin.Short(name))
		}
		e := types.EntitlementData{Name: aws.String(name), Unit: types.EntitlementDataUnit(l.Entitlements[i].Unit)}
		if e.Unit != UnitNone {
			e.Value = aws.String(strconv.FormatInt(c.cfg.Borrow[name], 10))
		}
		list = append(list, e)
	}
	api, err := c.client(ctx)
	if err != nil {
		return nil, err
	}
	// The same host asks with one token for a day, so that an answer that was lost is had again and not a second
	// borrow; with the token that it has already, it asks anew.
	now := c.cfg.Now()
	asked := []string{l.LicenseArn, now.UTC().Format(time.DateOnly), string(r.Document)}
	for _, e := range list {
		asked = append(asked, *e.Name, string(e.Unit), aws.ToString(e.Value))
	}
	out, err := api.CheckoutBorrowLicense(ctx,
		&lm.CheckoutBorrowLicenseInput{LicenseArn: aws.String(l.LicenseArn), Entitlements: list,
			DigitalSignatureMethod: types.DigitalSignatureMethodJwtPs384, NodeId: aws.String(c.node),
			CheckoutMetadata: []types.Metadata{{Name: aws.String(ProductKey), Value: aws.String(l.ProductSKU)}},
			ClientToken:      clientTokenOf("borrow", r, asked...)})
	switch {
	case is(err, ErrNoEntitlements, ErrEntitlementNot, ErrResourceNotFound):
		e := misconfigured(
			"see that it has a borrow configuration, and as much as is asked free: a borrow is had whole or not at all",
			"licence %s: the borrow was refused: %s", l.LicenseArn, reason(err))
		e.SystemCode = apiCode(err)
		return nil, e
	case err != nil:
		return nil, classify(ctx, OpBorrow, err, err)
	}
	token := aws.ToString(out.SignedToken)
	d, err := read([]byte(token))
	if err != nil || d.borrowed == nil || d.borrowed.LicenseArn != l.LicenseArn || d.borrowed.NodeID != c.node {
		return nil, plugin.Transiently(
			"%s answered without a token for this licence and node: whether it was borrowed is not known", OpBorrow)
	}
	if end := parsed(d.borrowed.Expiration); !end.After(now) {
		return nil, plugin.Transiently("%s answered with a token that is over already", OpBorrow)
	}
	for _, e := range list {
		if !slices.ContainsFunc(d.borrowed.EntitlementsAllowed, func(a allowed) bool {
			return a.Name == *e.Name && a.Unit == string(e.Unit) && (e.Value == nil || a.Value == *e.Value)
		}) {
			return nil, plugin.Transiently("%s answered with a token that lacks entitlement %q", OpBorrow,
				plugin.Short(*e.Name))
		}
	}
	return []byte(token + "\n"), nil
}

func sortedKeys(m map[string]int64) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// clientTokenOf makes a ClientToken that is the same for the same request of the same agent: 64 hexadecimal digits,
// which also the API of before 2021 took.
func clientTokenOf(kind string, r *plugin.Request, parts ...string) *string {
	h := sha256.New()
	for _, s := range append([]string{"usher-awslm/1", kind, r.AgentKey}, parts...) {
		h.Write([]byte(strconv.Itoa(len(s)) + ":" + s))
	}
	return aws.String(hex.EncodeToString(h.Sum(nil)))
}
