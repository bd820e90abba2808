package inspect

import (
	"errors"
	"fmt"
	"slices"

	"github.com/usher-agent/usher/agent/config"
	"github.com/usher-agent/usher/enforcer"
	"github.com/usher-agent/usher/plugin"
	"github.com/usher-agent/usher/plugin/catalog"
)

// maxKey is the size in bytes of the largest file of an anchor's key that is read.
const maxKey = 1 << 20

// Anchors returns the keys that verify documents: those that the vendor compiled in, with the product that they are
// for, or else those of the configuration. A configuration that adds keys to compiled ones is refused. The error names
// each key that is wrong.
func Anchors(c *config.Config) (anchors []plugin.Anchor, vendor string, err error) {
	vendor, anchors, err = catalog.Embedded()
	if err != nil {
		return nil, "", err
	}
	if vendor != "" {
		if len(c.License.Trust) > 0 {
			return nil, "", fmt.Errorf(
				"license.trust (%s): this agent is built for %s and trusts only the keys that are compiled in; "+
					"leave license.trust out",
				c.Origin("license.trust"),
				vendor,
			)
		}
		if name := c.Product.Name(); name != "" && !slices.Contains(c.Product, vendor) {
			return nil, "", fmt.Errorf("product %s: this agent is built for %s; leave product out", name, vendor)
		}
		return anchors, vendor, nil
	}
	var faults []error
	seen := map[string]bool{}
	for i, t := range c.License.Trust {
		a, err := anchor(c, t)
		if err == nil && seen[a.System+" "+a.KeyID] {
			err = fmt.Errorf("key %q of system %s is there twice", a.KeyID, a.System)
		}
		if err != nil {
			key := fmt.Sprintf("license.trust[%d]", i)
			faults = append(faults, c.At(key, fmt.Errorf("%s: %w", key, err)))
			continue
		}
		seen[a.System+" "+a.KeyID] = true
		anchors = append(anchors, a)
	}
	return anchors, "", errors.Join(faults...)
}

func anchor(c *config.Config, t config.Trust) (plugin.Anchor, error) {
	key := []byte(t.Key)
	if t.KeyFile != "" {
		var err error
		if key, err = c.ReadFile(t.KeyFile, maxKey); err != nil {
			return plugin.Anchor{}, fmt.Errorf("key %q: %w; put the vendor's public key there, or mend key_file",
				t.KeyID, err)
		}
	}
	of := catalog.Anchor
	if slices.ContainsFunc(c.Plugins, func(p config.Plugin) bool { return p.Name == t.System }) {
		of = catalog.PluginAnchor
	}
	a, err := of(t.System, t.KeyID, key, t.Algorithm)
	if err != nil {
		return plugin.Anchor{}, err
	}
	if err := catalog.NameSchemes(&a, t.Schemes); err != nil {
		return plugin.Anchor{}, err
	}
	a.NotBefore, a.NotAfter, a.Revoked = t.NotBefore, t.NotAfter, t.Revoked
	a.Environment = enforcer.Environment(t.Environment)
	return a, nil
}

// LicenseKeys returns the licence keys of the configuration; nil: it names none.
func LicenseKeys(c *config.Config) ([]string, error) {
	if c.License.KeyFile == "" {
		return nil, nil
	}
	b, err := c.ReadFile(c.License.KeyFile, plugin.MaxLicenseKeys)
	if err != nil {
		return nil, c.At("license.key_file", fmt.Errorf("license.key_file: %w; put the licence keys there, one a line",
			err))
	}
	keys, err := plugin.LicenseKeys(b)
	if err != nil {
		return nil, c.At("license.key_file", fmt.Errorf("license.key_file %s: %w", c.License.KeyFile, err))
	}
	return keys, nil
}
