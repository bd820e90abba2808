package main

import (
	"io"
	"os"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/agent/naming"
	"github.com/usher-agent/usher/cmd/usher/internal/manual"
	"github.com/usher-agent/usher/configs"
)

// manCommand is the command behind packages: it writes the manual pages, or puts the program's name into a text.
func (c *cli) manCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{Use: "man [DIR]", Hidden: true, Args: cobra.MaximumNArgs(1),
		Short: "Write the manual pages into a folder; without one, the standard input with this program's name",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				text, err := io.ReadAll(c.in)
				if err != nil {
					return err
				}
				return lines(c.out, naming.Text(string(text)))
			}
			root.InitDefaultCompletionCmd()
			return manual.Write(args[0], root, common())
		}}
}

// common is what the pages have in common.
func common() manual.Common {
	named := func(all []manual.Entry) []manual.Entry {
		for i := range all {
			all[i][0], all[i][1] = naming.Text(all[i][0]), naming.Text(all[i][1])
		}
		return all
	}
	c := manual.Common{Date: pageDate(), Source: naming.Program() + " " + version,
		ConfigurationPage: naming.Program() + ".yaml", Text: naming.Text(configs.Reference),
		Exit: []manual.Entry{{"0", "It is done."}, {"1", "It failed; the error says why."},
			{"3", "The licence is not valid."}, {"64", "The command line is wrong."},
			{"69", "The agent is away, or does not answer."},
			{"75", "There is no slot, or there are no draws; a later try may get them."},
			{"78", "The configuration is wrong."},
			{"130, 143", "SIGINT or SIGTERM has ended it."}},
		Environment: []manual.Entry{
			{"USHER_SOCKET", "The agent's socket, unless --socket names it."},
			{"USHER_INSTANCE", "The instance of the systemd unit, unless --instance names it."},
			{"USHER_CONFIG", "The configuration file of the agent, and of commands that read it."}},
		Files: []manual.Entry{
			{naming.Socket(), "The agent's socket."},
			{naming.Config(), "The configuration, for the agent and the commands that read it."},
			{"/usr/share/doc/" + naming.Program() + "/docs",
				"The pages of the documentation, which messages call docs/."},
			{"/usr/share/doc/" + naming.Program() + "/examples", "Configurations, alert rules and manifests."}}}
	c.ExitOf = map[string][]manual.Entry{
		"check": {{"0", "OK."}, {"1", "Warning."}, {"2", "Critical."}, {"3", "Unknown."}},
		"run": {{"the program's own", "The program has run; 128 and the signal's number where one has ended it."},
			{"3", "The licence is not valid; the program was not started."},
			{"64", "The command line is wrong."},
			{"69", "No agent answers; the program was not started."},
			{"75", "No slot is free, or what -E says; the program was not started."},
			{"125", "It failed otherwise."}, {"126", "The program cannot be run."},
			{"127", "There is no such program."}},
	}
	proxy := manual.Entry{"HTTPS_PROXY, NO_PROXY", "The proxy to the upstream, and hosts without one."}
	keys := manual.Entry{"USHER_...", "Each key of the configuration has a variable: license.path is " +
		"USHER_LICENSE_PATH."}
	host := manual.Entry{"HOST_PROC, HOST_SYS, HOST_ETC",
		"In a container: where the host's /proc, /sys and /etc are."}
	data := manual.Entry{"USHER_UPSTREAM_DATA", "The server's folder, unless --data names it."}
	c.EnvironmentOf = map[string][]manual.Entry{"agent": {keys, {"USHER_LICENSE", "A licence as text."}, host, proxy},
		"fingerprint": {host}, "upstream": {data, proxy},
		"run": {{"USHER_LEASE", "The lease's id, for the program that is run."}}}
	c.FilesOf = map[string][]manual.Entry{"agent": {
		{naming.LicenseFolder(), "The licences."}, {naming.StateFolder(), "The state that survives a boot."},
		{naming.RuntimeFolder(), "The state that does not."}},
		"license": {{naming.LicenseFolder(), "The licences."}}}
	for _, lists := range []map[string][]manual.Entry{c.ExitOf, c.EnvironmentOf, c.FilesOf} {
		for _, l := range lists {
			named(l)
		}
	}
	named(c.Exit)
	named(c.Environment)
	named(c.Files)
	return c
}

// pageDate is the day of the pages: that of the commit that the program was built from, so that they are built alike
// again, or else of SOURCE_DATE_EPOCH or today.
func pageDate() string {
	at := time.Now()
	if n, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		at = time.Unix(n, 0)
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if t, err := time.Parse(time.RFC3339, s.Value); s.Key == "vcs.time" && err == nil {
				at = t
			}
		}
	}
	return at.UTC().Format(time.DateOnly)
}
