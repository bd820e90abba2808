//go:build !linux

package host

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"

	"github.com/shirou/gopsutil/v3/cpu"
	psutil "github.com/shirou/gopsutil/v3/host"
)

// components reads what this system lets everybody read.
func components(ctx context.Context, _ places, _ string) []raw {
	const no = "not read on this operating system"
	id := raw{name: "machine-id"}
	if v, err := psutil.HostIDWithContext(ctx); err != nil || isFiller(v) {
		id.absent = "the system states no id"
	} else {
		id.values = []string{v}
	}
	mac := raw{name: "mac", absent: "there is no network card"}
	if links, err := net.Interfaces(); err == nil {
		for _, l := range links {
			if a := l.HardwareAddr.String(); len(l.HardwareAddr) == 6 && !isFiller(a) && l.HardwareAddr[0]&2 == 0 {
				mac.values, mac.absent = append(mac.values, a), ""
			}
		}
	}
	make := raw{name: "cpu", absent: "the processor does not say what it is"}
	if infos, err := cpu.InfoWithContext(ctx); err == nil && len(infos) > 0 {
		i := infos[0]
		make.values, make.absent = []string{fmt.Sprintf("%s|%s|%s|%d|%s", i.VendorID, i.Family, i.Model, i.Stepping,
			strings.Join(strings.Fields(i.ModelName), " "))}, ""
	}
	return []raw{id, {name: "product-uuid", absent: no}, {name: "board-serial", absent: no},
		{name: "disk-serial", absent: no}, mac, make, {name: "tpm-ek", absent: no}}
}

func surroundings(ctx context.Context, _ places) (virtual, container string) {
	if system, role, err := psutil.VirtualizationWithContext(ctx); err == nil && role == "guest" {
		return system, ""
	}
	return "", ""
}

// counter counts cores again and again.
type counter struct{}

// count counts the cores. This system has no control groups: all are effective.
func (counter) count(ctx context.Context, _ places) (physical, logical int, effective float64) {
	logical = runtime.NumCPU()
	physical, _ = cpu.CountsWithContext(ctx, false)
	if physical == 0 {
		physical = logical
	}
	return physical, logical, float64(logical)
}
