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

// Activate checks whether the licence is good. The agent does not call it: see [Client.Capabilities].
func (c *Client) Activate(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	return c.Heartbeat(ctx, r)
}

// Heartbeat asks for the licence's state. The heartbeat of checkouts is Extend.
func (c *Client) Heartbeat(ctx context.Context, r *plugin.Request) (*plugin.Reply, error) {
	out, err := c.CheckIn(ctx, r)
	if out != nil {
		out.Document = nil
	}
	return out, err
}

// CheckIn asks for the licence. If AWS states it differently from the document (a prolonged contract, another version,
// another number of seats), CheckIn seals a new document. A borrowed licence needs no call.
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

// seal seals a licence with the time of the service's clock, which TLS authenticates. So a wrong clock here does not
// get into the seal.
func (c *Client) seal(s *statement) ([]byte, error) {
	at := s.at
	if at.IsZero() {
		at = c.cfg.Now()
	}
	return seal(c.cfg.Key, s.raw, at)
}

// Deactivate gives a borrowed licence back, if the licence permits that before its end. For a received licence it only
// checks the state: the agent returns its blocks one by one.
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

// Refetches reports whether the licence is borrowed: then it ends, and must be fetched again.
func (c *Client) Refetches(*enforcer.License) bool { return len(c.cfg.Borrow) > 0 }

// Fetch finds the received licence of the SKU and issuer, and seals it or borrows from it, as configured.
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

// document is the content of a request's document. The agent has verified it.
type document struct {
	license  *License // of a received licence
	said     []byte   // as JSON
	borrowed *claims
}

func read(b []byte) (*document, error) {
	bad := misconfigured("remove it; the agent fetches the licence again",
		"the document is not a licence of AWS License Manager")
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

// statement is a licence as AWS states it.
type statement struct {
	*License
	raw []byte
	at  time.Time // by the service's clock; zero: not known
}

// say turns the SDK's form of a licence into the wire's, and keeps everything that the SDK has.
func say(sdk any, at time.Time) (*statement, error) {
	raw, err := json.Marshal(sdk, json.OmitZeroStructFields(true), json.Deterministic(true))
	s := &statement{&License{}, raw, at}
	if err == nil {
		err = json.Unmarshal(raw, s.License)
	}
	if err != nil {
		return nil, plugin.Transiently("AWS's answer about the licence cannot be read: %v",
			plugin.JSONFault(err, "member"))
	}
	return s, nil
}

// same reports whether the document has the same content, in any order of members. It does not compare ReceivedMetadata
// if the statement is not from the list, which alone gives it.
func (s *statement) same(d *document) bool {
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

// look asks for one licence in the list, which also has its grant. If the list is not allowed, or does not have the
// licence (an issuer's own), it asks by the ARN.
func (c *Client) look(ctx context.Context, arn string) (*statement, error) {
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

// list asks for received licences, page by page. at is the time by the service's clock.
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

// find asks for the licence of the SKU and issuer. If there are several, it takes the latest, as the service does.
func (c *Client) find(ctx context.Context) (*statement, error) {
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
				"; or name the licence (license_arn), which needs only GetLicense")
		}
		return nil, e
	}
	var found []*statement
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
			"check that this account has accepted and activated the grant, and that account and Region are right",
			"this AWS account has received no licence with SKU %s from %s", plugin.Short(c.cfg.ProductSKU),
			clip(c.cfg.KeyFingerprint, 80))
	}
	usable := func(s *statement) int {
		if c.good(s.License) == nil {
			return 1
		}
		return 0
	}
	return slices.MaxFunc(found, func(a, b *statement) int {
		return cmp.Or(usable(a)-usable(b), parsed(a.CreateTime).Compare(parsed(b.CreateTime)),
			cmp.Compare(a.Version, b.Version))
	}), nil
}

// good returns the reason that AWS does not let the licence be consumed; nil: it does.
func (c *Client) good(l *License) error {
	if l.ProductSKU != c.cfg.ProductSKU || l.Issuer.KeyFingerprint != c.cfg.KeyFingerprint {
		return misconfigured("check product_sku, key_fingerprint and license_arn",
			"licence %s is not of the configured product and issuer", l.LicenseArn)
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
			"accept and activate the grant in the License Manager console; accepting alone does not activate it",
			"the grant of licence %s is %s", l.LicenseArn, s)
		e.SystemCode = s
		return e
	default:
		return &plugin.Error{Class: plugin.Transient, SystemCode: clip(s, 64),
			Reason: "the grant of licence " + l.LicenseArn + " is not settled: " + clip(s, 64)}
	}
}

// borrow borrows the configured entitlements for offline use. The token is the document.
func (c *Client) borrow(ctx context.Context, l *License, r *plugin.Request) ([]byte, error) {
	if l.ConsumptionConfiguration.BorrowConfiguration == nil {
		return nil, misconfigured("leave borrow out, or ask the seller for a licence with a borrow configuration",
			"licence %s cannot be borrowed", l.LicenseArn)
	}
	var list []types.EntitlementData
	for _, name := range sortedKeys(c.cfg.Borrow) {
		i := slices.IndexFunc(l.Entitlements, func(e Entitlement) bool { return e.Name == name })
		if i < 0 {
			return nil, misconfigured("aws license-manager get-license shows its entitlements",
				"licence %s has no entitlement %q to borrow", l.LicenseArn, plugin.Short(name))
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
	// The host uses one ClientToken for a day, so that a repetition after a lost answer brings the same borrow and not
	// a second one. With a borrow at hand, it asks for a new one.
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
			"check that it has a borrow configuration and enough is free: a borrow is granted whole or not at all",
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
			"%s answered without a token for this licence and node: it is not known whether it was borrowed", OpBorrow)
	}
	if end := parsed(d.borrowed.Expiration); !end.After(now) {
		return nil, plugin.Transiently("%s answered with a token that is over", OpBorrow)
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

// clientTokenOf returns a ClientToken: the same for the same request of the same agent. It has 64 hexadecimal digits,
// which the API before 2021 accepts too.
func clientTokenOf(kind string, r *plugin.Request, parts ...string) *string {
	h := sha256.New()
	for _, s := range append([]string{"usher-awslm/1", kind, r.AgentKey}, parts...) {
		h.Write([]byte(strconv.Itoa(len(s)) + ":" + s))
	}
	return aws.String(hex.EncodeToString(h.Sum(nil)))
}
