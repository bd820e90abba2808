package main

import (
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
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
				&doc.GenManHeader{Title: "USHER", Section: "1", Source: "usher " + version, Manual: "Usher"}, args[0])
		}}
}
