// Command mockerfile is a frontend for BuildKit, for tests: a YAML file in place of a Dockerfile.
//
//	#syntax=registry.example/mockerfile:1
//	apiVersion: v1alpha1
//	from: busybox:1.37
//	files:
//	  /etc/greeting: hello
//	run:
//	  - tr a-z A-Z < /etc/greeting > /shouted
//	cmd: [cat, /shouted]
//
// The files are written first, then the commands run one after another. All else in the image is what
// the one it starts from has. Finding the file, named contexts, platforms and cache imports is the work
// of BuildKit's own library, so that clients see no difference to a Dockerfile.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"

	"github.com/distribution/reference"
	"github.com/moby/buildkit/client/llb"
	"github.com/moby/buildkit/client/llb/sourceresolver"
	"github.com/moby/buildkit/frontend/dockerui"
	"github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/gateway/grpcclient"
	"github.com/moby/buildkit/util/appcontext"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	ocispecs "github.com/opencontainers/image-spec/specs-go/v1"
	"go.yaml.in/yaml/v3"
)

const apiVersion = "v1alpha1"

// recipe is the content of the file.
type recipe struct {
	APIVersion string `yaml:"apiVersion"`
	// From is the image to start from.
	From string `yaml:"from"`
	// Files are texts by their absolute paths.
	Files map[string]string `yaml:"files"`
	// Run are commands for the shell.
	Run []string `yaml:"run"`
	// Cmd is what the image runs; without it, what the image it starts from runs.
	Cmd []string `yaml:"cmd"`
}

func main() {
	// The daemon talks to a frontend through its standard streams; an error goes that way, too.
	if err := grpcclient.RunFromEnvironment(appcontext.Context(), build); err != nil {
		fmt.Fprintln(os.Stderr, "mockerfile:", err)
		os.Exit(1)
	}
}

// build answers one request of a client, for all platforms that it asks for.
func build(ctx context.Context, gateway client.Client) (*client.Result, error) {
	ui, err := dockerui.NewClient(gateway)
	if err != nil {
		return nil, err
	}
	if result, done, err := ui.HandleSubrequest(ctx, dockerui.RequestHandler{}); done || err != nil {
		return result, err
	}
	source, err := ui.ReadEntrypoint(ctx, "YAML")
	if err != nil {
		return nil, err
	}
	wanted, err := parse(source.Data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source.Filename, err)
	}
	result, err := ui.Build(ctx, func(ctx context.Context, platform *ocispecs.Platform, _ int) (*dockerui.BuildResult, error) {
		return wanted.build(ctx, ui, platform)
	})
	if err != nil {
		return nil, err
	}
	return result.Finalize()
}

// parse reads the file; a field that it does not know is an error.
func parse(content []byte) (recipe, error) {
	var found recipe
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(&found); err != nil {
		return found, err
	}
	if found.APIVersion != apiVersion {
		return found, fmt.Errorf("apiVersion is %q, not %q", found.APIVersion, apiVersion)
	}
	if found.From == "" {
		return found, errors.New("from: there is no image to start from")
	}
	for name := range found.Files {
		if !path.IsAbs(name) {
			return found, fmt.Errorf("files: %q is no absolute path", name)
		}
	}
	return found, nil
}

// build has the image for one platform built; nil stands for the builder's own.
func (r recipe) build(ctx context.Context, ui *dockerui.Client, platform *ocispecs.Platform) (*dockerui.BuildResult, error) {
	base, image, err := resolve(ctx, ui, r.From, platform)
	if err != nil {
		return nil, fmt.Errorf("from: %w", err)
	}
	constraints := []llb.ConstraintsOpt{llb.WithCaps(ui.BuildOpts().LLBCaps)}
	if platform != nil {
		constraints = append(constraints, llb.Platform(*platform))
	}
	if ui.IsNoCache("") {
		constraints = append(constraints, llb.IgnoreCache)
	}
	definition, err := r.apply(base.User(image.Config.User)).Marshal(ctx, constraints...)
	if err != nil {
		return nil, err
	}
	result, err := ui.GatewayClient().Solve(ctx, client.SolveRequest{
		Definition:   definition.ToPB(),
		CacheImports: ui.CacheImports,
	})
	if err != nil {
		return nil, err
	}
	built, err := result.SingleRef()
	if err != nil {
		return nil, err
	}
	if r.Cmd != nil {
		image.Config.Cmd = r.Cmd
	}
	return &dockerui.BuildResult{Reference: built, Image: image}, nil
}

// apply adds files and commands. Files in order of their names: a map has no order, the cache needs one.
func (r recipe) apply(state llb.State) llb.State {
	for _, name := range slices.Sorted(maps.Keys(r.Files)) {
		write := llb.Mkdir(path.Dir(name), 0o755, llb.WithParents(true)).
			Mkfile(name, 0o644, []byte(r.Files[name]))
		state = state.File(write, llb.WithCustomName("[mockerfile] file "+name))
	}
	for _, command := range r.Run {
		arguments := llb.Args([]string{"/bin/sh", "-c", command})
		state = state.Run(arguments, llb.WithCustomName("[mockerfile] run "+command)).Root()
	}
	return state
}

// resolve finds an image: a named context of the client if there is one of that name, else in its registry.
func resolve(ctx context.Context, ui *dockerui.Client, name string, platform *ocispecs.Platform) (llb.State, *dockerspec.DockerOCIImage, error) {
	mode := ui.ImageResolveMode
	named, err := ui.NamedContext(name, dockerui.ContextOpt{Platform: platform, ResolveMode: mode.String()})
	if err != nil {
		return llb.State{}, nil, err
	}
	if named != nil {
		state, image, err := named.Load(ctx)
		if err == nil && image == nil {
			err = fmt.Errorf("the context %s is no image", name)
		}
		if err != nil {
			return llb.State{}, nil, err
		}
		return *state, image, nil
	}
	parsed, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return llb.State{}, nil, err
	}
	full := reference.TagNameOnly(parsed).String()
	full, _, config, err := ui.GatewayClient().ResolveImageConfig(ctx, full, sourceresolver.Opt{
		LogName:  "[mockerfile] load metadata for " + full,
		ImageOpt: &sourceresolver.ResolveImageOpt{Platform: platform, ResolveMode: mode.String()},
	})
	if err != nil {
		return llb.State{}, nil, err
	}
	var image dockerspec.DockerOCIImage
	if err := json.Unmarshal(config, &image); err != nil {
		return llb.State{}, nil, err
	}
	state, err := llb.Image(full, mode).WithImageConfig(config)
	return state, &image, err
}
