package agent

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/agent/identity"
	"github.com/usher-agent/usher/agent/ops"
	"github.com/usher-agent/usher/agent/upstreams"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
)

// Check says what a start would say of the files that a configuration names for upstreams and for ops.listen, without
// an agent. It calls nobody.
func Check(c *config.Config) error {
	_, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		return err
	}
	own, err := identity.Certificate(key, time.Now())
	if err != nil {
		return err
	}
	opener := upstreams.Opener{Settings: func() *config.Config { return c }, Key: key, Own: own.Certificates[0],
		Now: time.Now, Dated: time.Now, Activated: func(string, string) {},
		Anchors: func() []plugin.Anchor { return nil }, Secrets: func() plugin.Secrets { return plugin.Secrets{} },
		Verify: func([]byte) (*enforcer.License, *enforcer.Problem) { return nil, nil }}
	_, _, way := fleetWay(c).Open()
	faults := []error{c.Named(opener.Check(c)), c.Named(way)}
	if file := c.Ops.WebConfig; file != "" {
		_, err := c.ReadFile(file, maxNamed)
		if err != nil {
			err = fmt.Errorf("ops.web_config: %w; put the file there, or leave the key out", err)
		} else {
			err = ops.Check(file)
		}
		faults = append(faults, c.At("ops.web_config", err))
	}
	return errors.Join(faults...)
}
