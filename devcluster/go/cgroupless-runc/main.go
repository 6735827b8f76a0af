// Command cgroupless-runc is runc for a box that may not touch the machine's cgroups.
//
// runc does without cgroups, as it does for ordinary users, if a container asks for no group and no
// limit. containerd and BuildKit always ask for some, so this program takes them out of the container's
// specification, and then becomes the runc that is on the PATH.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "cgroupless-runc:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	for i, argument := range arguments[:max(len(arguments)-1, 0)] {
		if argument == "--bundle" {
			if err := strip(filepath.Join(arguments[i+1], "config.json")); err != nil {
				return err
			}
		}
	}
	runc, err := exec.LookPath("runc")
	if err != nil {
		return err
	}
	return syscall.Exec(runc, append([]string{"runc", "--rootless=true"}, arguments...), os.Environ())
}

// strip removes group and limits from a specification; everything else keeps its very bytes.
func strip(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var specification, linux map[string]json.RawMessage
	if err := json.Unmarshal(content, &specification); err != nil {
		return err
	}
	if err := json.Unmarshal(specification["linux"], &linux); err != nil {
		return err
	}
	delete(linux, "cgroupsPath")
	delete(linux, "resources")
	if specification["linux"], err = json.Marshal(linux); err != nil {
		return err
	}
	if content, err = json.Marshal(specification); err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o600)
}
