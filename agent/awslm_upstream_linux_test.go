package agent_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	lm "github.com/aws/aws-sdk-go-v2/service/licensemanager"
	"github.com/aws/aws-sdk-go-v2/service/licensemanager/types"
	"github.com/aws/smithy-go"
	"github.com/go-jose/go-jose/v4"

	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/awslm"
	"github.com/usher-agent/usher/plugin/usher"
)

// AWS's default chain finds the key of a counter in this program and its agents, and nothing of the machine's own.
func init() {
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": awsKey, "AWS_SECRET_ACCESS_KEY": awsSecret,
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": "eu-west-1",
		"AWS_CONFIG_FILE": "/nonexistent", "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"} {
		os.Setenv(k, v)
	}
	os.Unsetenv("AWS_PROFILE") // that of an empty name is none that AWS's clients find
}

// signingKey fetches the public key of borrowed licences.
func (a *awsCounter) signingKey() []byte {
	a.t.Helper()
	res, b := callerOf(a.t, "unix:"+a.unix).send("GET", awslm.SigningKeyPath, nil)
	if res.StatusCode != 200 {
		a.t.Fatalf("%s: %s", res.Status, b)
	}
	return b
}

// What AWS's client has borrowed verifies offline with a stock library.
func TestAWSClientBorrows(t *testing.T) {
	t.Parallel()
	a := awsHouse(t, 4, lends)
	c := a.sdk(awsKey)
	all, err := c.ListReceivedLicenses(t.Context(),
		&lm.ListReceivedLicensesInput{Filters: []types.Filter{{Name: aws.String("Fingerprint"),
			Values: []string{awsIssuer}}}})
	if err != nil || len(all.Licenses) != 1 || all.Licenses[0].ConsumptionConfiguration.BorrowConfiguration == nil {
		t.Fatalf("%+v, %v", all, err)
	}
	in := &lm.CheckoutBorrowLicenseInput{LicenseArn: all.Licenses[0].LicenseArn, ClientToken: aws.String("b"),
		DigitalSignatureMethod: types.DigitalSignatureMethodJwtPs384,
		NodeId:                 aws.String("node"),
		Entitlements:           []types.EntitlementData{awsAsked("streams", types.EntitlementDataUnitCount, "3")},
		CheckoutMetadata:       []types.Metadata{{Name: aws.String("mac"), Value: aws.String("00:11")}}}
	got, err := c.CheckoutBorrowLicense(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(a.signingKey())
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := jose.ParseSignedCompact(*got.SignedToken, []jose.SignatureAlgorithm{jose.PS384})
	if err != nil {
		t.Fatal(err)
	}
	payload, err := jws.Verify(key.(*rsa.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	var said struct {
		LicenseArn          string            `json:"licenseArn"`
		NodeID              string            `json:"nodeId"`
		EntitlementsAllowed []json.RawMessage `json:"entitlementsAllowed"`
		CheckoutMetadata    map[string]string `json:"checkoutMetadata"`
	}
	if err := json.Unmarshal(payload, &said); err != nil || said.LicenseArn != *in.LicenseArn ||
		said.NodeID != "node" || len(said.EntitlementsAllowed) != 1 || said.CheckoutMetadata["mac"] != "00:11" {
		t.Errorf("%s, %v", payload, err)
	}
	in.ClientToken, in.Entitlements[0].Value = aws.String("c"), aws.String("2")
	var full *types.NoEntitlementsAllowedException
	if _, err := c.CheckoutBorrowLicense(t.Context(), in); !errors.As(err, &full) {
		t.Errorf("beyond the limit: %v", err)
	}
	var meter *types.EntitlementNotAllowedException
	in.Entitlements = []types.EntitlementData{awsAsked("uses", types.EntitlementDataUnitCount, "1")}
	if _, err := c.CheckoutBorrowLicense(t.Context(), in); !errors.As(err, &meter) {
		t.Errorf("a meter: %v", err)
	}
}

// Callers over TCP are who signs: without a signature, or with a wrong one, nobody is let in, and what one has the
// other cannot touch. No secret is logged.
func TestAWSCallers(t *testing.T) {
	t.Parallel()
	a := awsHouse(t, 4, nil)
	mine, err := a.sdk(awsKey).CheckoutLicense(t.Context(),
		awsCheckout("t", types.CheckoutTypeProvisional, awsAsked("streams", types.EntitlementDataUnitCount, "1")))
	if err != nil {
		t.Fatal(err)
	}
	for who, c := range map[string]*lm.Client{"another key": a.sdk(awsOther), "the socket": a.sdk("")} {
		var gone *types.ResourceNotFoundException
		if _, err := c.CheckInLicense(t.Context(),
			&lm.CheckInLicenseInput{LicenseConsumptionToken: mine.LicenseConsumptionToken}); !errors.As(err, &gone) {
			t.Errorf("%s checks it in: %v", who, err)
		}
		theirs, err := c.CheckoutLicense(t.Context(),
			awsCheckout("t", types.CheckoutTypeProvisional, awsAsked("streams", types.EntitlementDataUnitCount, "1")))
		if err != nil || *theirs.LicenseConsumptionToken == *mine.LicenseConsumptionToken {
			t.Errorf("%s has the same ClientToken: %v", who, err)
		}
	}
	var denied *types.AccessDeniedException
	if _, err := a.sdk("AKIANOBODY").GetLicenseUsage(t.Context(),
		&lm.GetLicenseUsageInput{LicenseArn: mine.LicenseArn}); !errors.As(err, &denied) ||
		strings.Contains(err.Error(), "NOBODY") {
		t.Errorf("an unknown key: %v", err)
	}
	res, b := callerOf(t, a.tcp, "Content-Type", awslm.ContentType, awslm.TargetHeader,
		awslm.TargetPrefix+awslm.OpListReceived).send("POST", "/", []byte("{}"))
	if res.StatusCode != 400 || !strings.Contains(string(b), awslm.ErrAccessDenied) {
		t.Errorf("no signature: %s %s", res.Status, b)
	}
	if res, b := callerOf(t, "unix:"+a.unix, "Content-Type", awslm.ContentType, awslm.TargetHeader,
		awslm.TargetPrefix+awslm.OpListReceived, "Authorization", "nonsense").send("POST", "/aws",
		[]byte("{}")); res.StatusCode != 200 {
		t.Errorf("on the socket the kernel decides: %s %s", res.Status, b)
	}
}

// awsApart has the counter's agent in a process of its own.
func awsApart(t *testing.T, a *awsCounter) *toyProcess {
	t.Helper()
	a.stop()
	if err := os.WriteFile(a.path("usher.yaml"), []byte(a.config), 0o600); err != nil {
		t.Fatal(err)
	}
	p := &toyProcess{house: a.house}
	t.Cleanup(p.kill)
	p.run()
	a.where()
	return p
}

// awsAnswers are the answers to one request of each kind.
type awsAnswers struct {
	checkout, draw *lm.CheckoutLicenseOutput
	borrow         *lm.CheckoutBorrowLicenseOutput
	tiers          *lm.CheckoutLicenseOutput
}

func askAll(t *testing.T, a *awsCounter, key string) (out awsAnswers) {
	t.Helper()
	c, ctx := a.sdk(key), context.Background()
	var err error
	if out.checkout, err = c.CheckoutLicense(ctx, awsCheckout("c", types.CheckoutTypeProvisional,
		awsAsked("streams", types.EntitlementDataUnitCount, "1"))); err != nil {
		t.Fatal(err)
	}
	if out.draw, err = c.CheckoutLicense(ctx, awsCheckout("d", types.CheckoutTypePerpetual,
		awsAsked("uses", types.EntitlementDataUnitCount, "2"))); err != nil {
		t.Fatal(err)
	}
	if out.borrow, err = c.CheckoutBorrowLicense(ctx,
		&lm.CheckoutBorrowLicenseInput{LicenseArn: out.draw.LicenseArn, ClientToken: aws.String("b"),
			NodeId:                 aws.String("n"),
			DigitalSignatureMethod: types.DigitalSignatureMethodJwtPs384,
			Entitlements: []types.EntitlementData{awsAsked("streams", types.EntitlementDataUnitCount,
				"1")}}); err != nil {
		t.Fatal(err)
	}
	if out.tiers, err = c.CheckoutLicense(ctx, awsCheckout("f", types.CheckoutTypeProvisional,
		awsAsked("streams", types.EntitlementDataUnitCount, "0"))); err != nil {
		t.Fatal(err)
	}
	for _, out := range []*lm.CheckoutLicenseOutput{out.checkout, out.draw, out.tiers} {
		out.ResultMetadata = lm.CheckoutLicenseOutput{}.ResultMetadata
	}
	out.borrow.ResultMetadata = lm.CheckoutBorrowLicenseOutput{}.ResultMetadata
	return out
}

// Whatever was answered is answered again over kills, and what was not is asked for again: once drawn, once taken.
func TestAWSClientKilled(t *testing.T) {
	t.Parallel()
	a := awsHouse(t, 4, lends)
	p := awsApart(t, a)
	first := map[string]awsAnswers{"": askAll(t, a, ""), awsKey: askAll(t, a, awsKey)}
	for round := range 3 {
		p.kill()
		p.run()
		a.where()
		for key, was := range first {
			if again := askAll(t, a, key); !reflect.DeepEqual(again, was) {
				t.Errorf("round %d: %+v is answered %+v", round, was, again)
			}
			if _, err := a.sdk(key).ExtendLicenseConsumption(t.Context(),
				&lm.ExtendLicenseConsumptionInput{
					LicenseConsumptionToken: was.checkout.LicenseConsumptionToken}); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
		}
		for pool, n := range map[string]int64{"streams": 4, "uses": 4} {
			if got, err := a.Pool(t.Context(), pool); err != nil || got.InUse != n {
				t.Errorf("round %d: %+v, %v", round, got, err)
			}
		}
	}
	for key, was := range first {
		for _, token := range []*string{was.checkout.LicenseConsumptionToken, was.borrow.LicenseConsumptionToken,
			was.tiers.LicenseConsumptionToken} {
			if _, err := a.sdk(key).CheckInLicense(t.Context(),
				&lm.CheckInLicenseInput{LicenseConsumptionToken: token}); err != nil {
				t.Error(err)
			}
		}
	}
	p.kill()
	p.run()
	if got, err := a.Pool(t.Context(), "streams"); err != nil || got.InUse != 0 {
		t.Errorf("what was given back is there: %+v, %v", got, err)
	}
	for key, was := range first {
		a.where()
		if _, err := a.sdk(key).ExtendLicenseConsumption(t.Context(),
			&lm.ExtendLicenseConsumptionInput{LicenseConsumptionToken: was.tiers.LicenseConsumptionToken}); err == nil {
			t.Error("what was checked in is extended after a crash")
		}
	}
}

// While the agent is killed at any moment, a caller that asks until it is answered has drawn once, taken once, and is
// always answered the same. An agent lives for some answers, so that callers on a slow machine come to an end, too.
func TestAWSUnderKill(t *testing.T) {
	t.Parallel()
	const callers, each = 4, 12
	many := int64(callers * each)
	a := awsHouse(t, many, func(c *usher.Claims) { c.Meters["uses"] = usher.Meter{Max: &many, Scope: "host"} })
	p := awsApart(t, a)
	where := make(chan string, 1) // empty while there is no agent
	where <- a.tcp
	answered := make(chan struct{}, 4*many)
	var done sync.WaitGroup
	for i := range callers {
		done.Go(func() {
			for n := range each {
				for _, in := range []*lm.CheckoutLicenseInput{awsCheckout(fmt.Sprint("d-", i, "-", n),
					types.CheckoutTypePerpetual, awsAsked("uses", types.EntitlementDataUnitCount, "1")),
					awsCheckout(fmt.Sprint("c-", i, "-", n), types.CheckoutTypeProvisional,
						awsAsked("streams", types.EntitlementDataUnitCount, "1"))} {
					var token string
					for answers := 0; answers < 2; {
						at := <-where
						where <- at
						out, err := (&awsCounter{house: a.house, tcp: at}).sdk(awsKey).CheckoutLicense(t.Context(), in,
							func(o *lm.Options) {
								o.RetryMaxAttempts = 1
							})
						var api smithy.APIError
						switch {
						case errors.As(err, &api) && api.ErrorCode() != awslm.ErrServerInternal:
							t.Error(err)
							return
						case t.Context().Err() != nil:
							return
						case err != nil:
							<-time.After(time.Millisecond)
						case token != "" && *out.LicenseConsumptionToken != token:
							t.Errorf("%s is answered %s and %s", *in.ClientToken, token, *out.LicenseConsumptionToken)
							return
						default:
							token = *out.LicenseConsumptionToken
							answers++
							answered <- struct{}{}
						}
					}
				}
			}
		})
	}
	finished := make(chan struct{})
	go func() { done.Wait(); close(finished) }()
	kills := 0
	for over := false; !over; {
		for range rand.IntN(8) { // none: it is killed before it can answer
			select {
			case <-answered:
			case <-finished:
			}
		}
		select {
		case <-finished:
			over = true
		case <-time.After(time.Duration(rand.IntN(5000)) * time.Microsecond):
			<-where
			p.kill()
			p.run()
			a.where()
			where <- a.tcp
			kills++
		}
	}
	t.Logf("%d kills", kills)
	for _, pool := range []string{"streams", "uses"} {
		if got, err := a.Pool(t.Context(), pool); err != nil || got.InUse != many {
			t.Errorf("after %d kills: %+v, %v; want %d in use", kills, got, err, many)
		}
	}
}

// Usher's own upstream takes blocks and draws of another Usher, which is killed between its calls.
func TestUsherOfUsher(t *testing.T) {
	t.Parallel()
	a := awsHouse(t, 8, nil)
	p := awsApart(t, a)
	key := ed25519.NewKeyFromSeed([]byte(strings.Repeat("k", ed25519.SeedSize)))
	client := func() *awslm.Client {
		a.where()
		c, err := awslm.NewClient(awslm.Config{Key: key, ProductSKU: "acme", KeyFingerprint: awsIssuer,
			Endpoint: "http://" + a.tcp})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	doc, err := client().Fetch(t.Context(), &plugin.Request{AgentKey: "k"})
	if err != nil {
		t.Fatal(err)
	}
	request := func() plugin.Request { return plugin.Request{Document: doc.Document, Product: "acme", AgentKey: "k"} }
	again := func() {
		p.kill()
		p.run()
	}
	again()
	block, err := client().CheckOut(t.Context(),
		&plugin.CheckOut{Request: request(), Pool: "streams", Slots: 5, For: time.Hour, Token: "a"})
	if err != nil {
		t.Fatal(err)
	}
	again()
	same, err := client().CheckOut(t.Context(),
		&plugin.CheckOut{Request: request(), Pool: "streams", Slots: 5, For: time.Hour, Token: "a"})
	if err != nil || same.ID != block.ID {
		t.Errorf("%+v, %v", same, err)
	}
	rest, err := client().CheckOut(t.Context(),
		&plugin.CheckOut{Request: request(), Pool: "streams", Slots: 5, AtLeast: 1, For: time.Hour, Token: "b"})
	if err != nil || rest.Slots != 3 {
		t.Fatalf("the rest: %+v, %v", rest, err)
	}
	var full *plugin.Error
	if _, err := client().CheckOut(t.Context(), &plugin.CheckOut{Request: request(), Pool: "streams", Slots: 1,
		For: time.Hour, Token: "c"}); !errors.As(err, &full) || full.SystemCode != "NO_SLOTS" {
		t.Errorf("beyond the limit: %v", err)
	}
	again()
	r := request()
	r.State = block.State
	if b, err := client().Extend(t.Context(),
		&plugin.Extend{Request: r, Block: block.ID, Slots: 5, For: time.Hour}); err != nil || b.For < 59*time.Minute {
		t.Errorf("%+v, %v", b, err)
	}
	draw := &plugin.Draw{Request: request(), Meter: "uses", N: 2, Token: "d"}
	for range 2 {
		if d, err := client().Draw(t.Context(), draw); err != nil || d.N != 2 {
			t.Errorf("%+v, %v", d, err)
		}
		again()
	}
	for _, b := range []*plugin.Block{block, rest, block} {
		r.State = b.State
		if err := client().Return(t.Context(), &plugin.Return{Request: r, Block: b.ID}); err != nil {
			t.Error(err)
		}
	}
	for pool, n := range map[string]int64{"streams": 0, "uses": 2} {
		if got, err := a.Pool(t.Context(), pool); err != nil || got.InUse != n {
			t.Errorf("%s: %+v, %v", pool, got, err)
		}
	}
}

// An agent borrows from another, and hands out what it has; another has what that one lists, and checks in with it.
func TestAgentsOfAgents(t *testing.T) {
	t.Parallel()
	a := awsHouse(t, 4, nil)
	key := a.path("seller.pub")
	if err := os.WriteFile(key, a.signingKey(), 0o600); err != nil {
		t.Fatal(err)
	}
	b := open(t,
		fmt.Sprintf(
			"    - {system: awslm, kid: acme, key_file: %s}\nupstream: {aws: {product_sku: acme, key_fingerprint: "+
				"%q, endpoint: 'http://%s', borrow: {streams: 3}}}\n", key, awsIssuer, a.tcp))
	b.until("borrowed", code("VALID"))
	three, one := int64(3), int64(1)
	if _, err := b.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: &three, TTLSeconds: 60}); err != nil {
		t.Error(err)
	}
	if _, err := b.Acquire(t.Context(), wire.AcquireRequest{Pool: "streams", N: &one, TTLSeconds: 60}); err == nil {
		t.Error("more is handed out than was borrowed")
	}
	if p, err := a.Pool(t.Context(), "streams"); err != nil || p.InUse != 3 {
		t.Errorf("%+v, %v", p, err)
	}
	dir, err := os.MkdirTemp(tempDir(), "u")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := open(t,
		fmt.Sprintf(
			"    - {system: awslm, alg: sealed, kid: %q}\nupstream: {aws: {product_sku: acme, key_fingerprint: %q, "+
				"endpoint: 'http://%s'}}\nlisteners: [{address: %s, dialect: awslm}]\n", awsIssuer, awsIssuer, a.tcp,
			dir+"/aws"))
	c.until("fetched", code("VALID"))
	if err := c.UpstreamCall(t.Context()); err != nil {
		t.Error(err)
	}
	// A product there has of the first what is left, and as if it were AWS.
	far := &awsCounter{house: c, unix: dir + "/aws"}
	ask := awsCheckout("far", types.CheckoutTypeProvisional, awsAsked("streams", types.EntitlementDataUnitCount, "1"))
	var got *lm.CheckoutLicenseOutput
	for deadline := time.Now().Add(30 * time.Second); ; {
		var full *types.NoEntitlementsAllowedException
		if got, err = far.sdk("").CheckoutLicense(t.Context(), ask); !errors.As(err, &full) ||
			time.Now().After(deadline) {
			break
		} // a busy machine may need longer than a checkout waits
	}
	if err != nil || *got.EntitlementsAllowed[0].Value != "1" {
		t.Fatalf("%+v, %v", got, err)
	}
	if p, err := a.Pool(t.Context(), "streams"); err != nil || p.InUse != 4 {
		t.Errorf("%+v, %v", p, err)
	}
}

func init() {
	askers["upstream.aws.refresh_token_file"] = asker{"aws: {product_sku: acme, key_fingerprint: " +
		"'aws:294406891311:AWS/Marketplace:issuer-fingerprint', region: us-east-1, endpoint: '%[1]s', sts_endpoint: " +
		"'%[1]s', role_arn: 'arn:aws:iam::123456789012:role/usher', refresh_token_file: %[2]s}", fetches}
}
