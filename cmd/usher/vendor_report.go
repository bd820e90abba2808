package main

import (
	"cmp"
	"crypto"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/identity"
	inuse "github.com/usher-agent/usher/agent/usage"
	"github.com/usher-agent/usher/client"
	"github.com/usher-agent/usher/client/wire"
	"github.com/usher-agent/usher/plugin/textual"
	"github.com/usher-agent/usher/plugin/usher"
	"github.com/usher-agent/usher/plugin/usher/issue"
)

// anchorsOfReports are the keys that a vendor knows.
type anchorsOfReports struct {
	agents  []string // thumbprints
	vendors map[string]crypto.PublicKey
}

func (c *cli) verifyReportCommand() *cobra.Command {
	var agents, vendors []string
	var nonce string
	var o reportFlags
	cmd := &cobra.Command{
		Use:   "verify-report FILE… {--agent-key KEY | --vendor-key K.pub} [--nonce N] [--by user]",
		Short: "Check usage reports that agents have signed", Args: cobra.MinimumNArgs(1),
		Long: `Check reports that "usher report --sign" has written, and show what was in use. KEY is what you know
of the agent: the thumbprint that the licence names, the request that the host sent (usher fingerprint
--request), or the agent's public key. With --vendor-key, a licence or voucher that you signed and that
the report has in it may name the agent instead. Give the reports of an agent together: then a stretch
that none of them has shows. Exits 1 when a report does not hold, or an agent is not known.`,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := o.checkBy(); err != nil {
				return err
			}
			if len(agents)+len(vendors) == 0 {
				return fail(exitUsage, "give --agent-key with the thumbprint, or the request that the host sent",
					"nothing says whose reports these are to be")
			}
			known, err := readAnchors(agents, vendors)
			if err != nil {
				return err
			}
			var all []*inuse.Report
			for _, name := range args {
				r, err := c.verifyReport(name, known, nonce)
				if err != nil {
					return err
				}
				all = append(all, r)
			}
			return c.judgeReports(all, o)
		}}
	o.add(cmd)
	cmd.Flags().StringArrayVar(&agents, "agent-key", nil, "an agent's key: a thumbprint, or a file")
	cmd.Flags().StringArrayVar(&vendors, "vendor-key", nil, "a key that licences are signed with: K.pub")
	cmd.Flags().StringVar(&nonce, "nonce", "", "the word that the report must have in it")
	return cmd
}

// thumbprintRule is an RFC 7638 thumbprint with SHA-256.
var thumbprintRule = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)

func readAnchors(agents, vendors []string) (known anchorsOfReports, err error) {
	for _, a := range agents {
		thumb := a
		if !thumbprintRule.MatchString(a) {
			if thumb, err = thumbprintIn(a); err != nil {
				return known, fmt.Errorf("--agent-key %s: %w", a, err)
			}
		}
		known.agents = append(known.agents, thumb)
	}
	known.vendors = map[string]crypto.PublicKey{}
	for _, name := range vendors {
		b, err := readText(name)
		if err != nil {
			return known, fmt.Errorf("--vendor-key: %w", err)
		}
		if known.vendors[issue.KeyIDOf(name)], err = usher.ParsePublicKey(b); err != nil {
			return known, fmt.Errorf("--vendor-key %s: %w", name, err)
		}
	}
	return known, nil
}

// thumbprintIn reads the key of an agent from a file: its public key, or a host's request.
func thumbprintIn(name string) (string, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("it is neither a thumbprint nor a file that can be read: %w", err)
	}
	var request struct {
		AgentKey string `json:"agent_key"`
	}
	if json.Unmarshal(textual.JSON(b), &request) == nil {
		if request.AgentKey == "" {
			return "", errors.New("the request names no agent's key; make it while the agent runs")
		}
		return request.AgentKey, nil
	}
	k, err := usher.ParsePublicKey(textual.Decode(b))
	if err != nil {
		return "", err
	}
	public, ok := k.(ed25519.PublicKey)
	if !ok {
		return "", errors.New("it is not an Ed25519 key, so it is no agent's")
	}
	return identity.Thumbprint(public), nil
}

// verifyReport reads one report, and says of it what is proved.
func (c *cli) verifyReport(name string, known anchorsOfReports, nonce string) (*inuse.Report, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	r, err := inuse.ReadReport(textual.Decode(b))
	if err != nil {
		return nil, fmt.Errorf("report %s: %w", name, err)
	}
	if nonce != "" && r.Nonce != nonce {
		return nil, fmt.Errorf("report %s: it does not have the nonce in it; it may be an older report", name)
	}
	by := "you named its key"
	if !slices.Contains(known.agents, r.AgentKey) {
		err := errors.New("it is none of --agent-key")
		if len(known.vendors) > 0 {
			v := client.Vendor{Product: r.Product, Keys: known.vendors}
			if err = v.Vouches(r.Vouchers, r.Key); err == nil {
				by = "a document that you signed names its key"
			}
		}
		if by == "you named its key" {
			return nil, fail(exitFailed,
				"ask the host for its request (usher fingerprint --request) by a way that you trust",
				"report %s: agent key %s has signed it, and that is not known: %w", name, r.AgentKey, err)
		}
	}
	c.sayReport(name, r, by)
	return r, nil
}

func (c *cli) sayReport(name string, r *inuse.Report, by string) {
	if c.json {
		return
	}
	var ids []string
	for _, l := range r.Licenses {
		ids = append(ids, l.ID)
	}
	fprintf(c.out, "%s: of agent %s on host %s, for product %s; %s\n", name, r.AgentKey, dash(r.Host), r.Product, by)
	fprintf(c.out, "  from %s to %s, made at %s under licences %s\n", hourText(r.From), hourText(r.To),
		r.Issued.UTC().Format(time.RFC3339), cmp.Or(strings.Join(ids, ", "), "(none)"))
	if r.Last.Sequence > 0 {
		fprintf(c.out, "  hours %d to %d of the agent's record, each signed, and none missing but as said below\n",
			r.First.Sequence, r.Last.Sequence)
	}
	if n := len(r.Open); n > 0 {
		fprintf(c.out, "  %d hours were not over when it was made, and may still grow\n", n)
	}
}

// notProved is what no report proves.
const notProved = `proved: the agent's key has signed the reports, nobody has changed them since, and no hour between
  the first and the last of each agent is missing, but for what is said above
not proved: that an agent ran whenever the product did (see the time that nobody counted), and that nobody with
  the agent's key, as root on its host has it, wrote another record
`

// judgeReports says what the reports prove together, and what was in use.
func (c *cli) judgeReports(all []*inuse.Report, o reportFlags) error {
	breaks, err := inuse.Breaks(all)
	if err != nil {
		return err
	}
	var sums []wire.Usage
	var last time.Time
	for _, r := range all {
		sums = append(sums, r.Usage())
		if r.Issued.After(last) {
			last = r.Issued
		}
	}
	m, err := inuse.Merge(sums, last)
	if err != nil {
		return err
	}
	m.Warnings = append(m.Warnings, breaks...)
	if c.json {
		return c.printMerged(m, o)
	}
	if err := c.printUsage(m, o); err != nil {
		return err
	}
	return lines(c.out, notProved)
}
