package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/usher-agent/usher/agent/naming"
)

// manCommand is the command behind make man: it writes the manual pages for packages.
func (c *cli) manCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{Use: "man DIR", Hidden: true, Args: cobra.ExactArgs(1),
		Short: "Write the manual pages into a folder",
		RunE: func(_ *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return err
			}
			root.DisableAutoGenTag = true
			return doc.GenManTree(root,
				&doc.GenManHeader{Title: strings.ToUpper(naming.Program()), Section: "1",
					Source: naming.Program() + " " + version, Manual: naming.Text("Usher")}, args[0])
		}}
}
