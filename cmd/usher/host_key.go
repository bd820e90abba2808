package main

import (
	"crypto/ed25519"
	"errors"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/identity"
)

func (c *cli) hostCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "host", Short: "Make what a host needs before its agent runs"}
	cmd.AddCommand(c.hostKeyCommand())
	return cmd
}

func (c *cli) hostKeyCommand() *cobra.Command {
	var out string
	var force bool
	cmd := &cobra.Command{Use: "key --out FILE [--force]",
		Short: "Make the key of an agent, to which a licence can be bound", Args: cobra.NoArgs,
		Long: `Make the key of an agent and print its thumbprint, to which a vendor binds a licence. An agent makes
a key of its own when it starts; make one beforehand where its host does not last: keep it in a
Secret, and name its file in agent.key_file. The file has mode 0600. No file is overwritten without
--force: a licence that is bound to a key that is gone must be bound again.`,
		Example: `  usher host key --out agent.key
  kubectl create secret generic usher-agent-key --from-file=agent.key`,
		RunE: func(*cobra.Command, []string) error {
			if out == "" {
				return usage("--out is missing: the file to write the key to, such as agent.key")
			}
			key, err := identity.Make(out, force)
			if errors.Is(err, fs.ErrExist) {
				return fail(exitFailed,
					"choose another name for --out; --force overwrites the key, and a licence that "+
						"is bound to it must then be bound again", "%w", err)
			}
			if err != nil {
				return unwritten("--out", out, err)
			}
			thumb := identity.Thumbprint(key.Public().(ed25519.PublicKey))
			if c.json {
				return c.printJSON(map[string]string{"jkt": thumb, "private": out})
			}
			fprintf(c.out, "%s\n", thumb)
			fprintf(c.errs, "%s  the private key: keep it secret\n", out)
			fprintf(c.errs, "give the thumbprint to the vendor for: usher vendor sign --agent-key %s\n", thumb)
			return nil
		}}
	cmd.Flags().StringVar(&out, "out", "", "the file to write the key to")
	cmd.Flags().BoolVar(&force, "force", false, "overwrite the file if it exists")
	return cmd
}
