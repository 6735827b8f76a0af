// Command goclient builds as programs in Go do that use BuildKit's own library, for tests.
//
//	goclient [flags] turns  -builds 50    one build after the other
//	goclient [flags] many   -targets 300  targets that all go on at once, and wait for each other
//	goclient [flags] kept                 a build for each line of the standard input
//	goclient fields                       prints what a request to build is made of, and builds nothing
//
// Each of the others uses one connection, and begins its builds with client.Build, or with -solve by
// client.Solve, which asks nothing before it builds. What is built is a file that comes back to a folder
// here: the daemon reaches the client through the session for it. Each build prints a line of JSON; the
// exit code is 1 if one of them failed. Nothing is tried again.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	control "github.com/moby/buildkit/api/services/control"
	"github.com/moby/buildkit/client"
	"github.com/moby/buildkit/client/llb"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/session"
	"github.com/moby/buildkit/util/grpcerrors"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// told is what is printed of a build.
type told struct {
	// Build is its number, from 1.
	Build int `json:"build"`
	// Seconds is how long it took, to wait for a slot included.
	Seconds float64 `json:"seconds"`
	// Code is the status of gRPC, and Error the message; both are empty where the build ended well.
	Code  string `json:"code"`
	Error string `json:"error"`
	// Connections is how many the program has opened so far.
	Connections int64 `json:"connections"`
}

// builder is one connection to a pool, and counts how often it had to be opened.
type builder struct {
	*client.Client
	opened atomic.Int64
	byLLB  bool
	mutex  sync.Mutex
	failed bool
}

func main() {
	address := flag.String("addr", "", "where the pool is, such as tcp://ci.builds.svc:1234")
	name := flag.String("servername", "", "what its certificate is for, if the address does not say so")
	folder := flag.String("tlsdir", "", "folder with ca.pem, cert.pem and key.pem")
	solve := flag.Bool("solve", false, "build by client.Solve instead of client.Build")
	flag.Parse()
	failed, err := run(*address, *name, *folder, *solve, flag.Args())
	if err != nil {
		fmt.Fprintln(os.Stderr, "goclient:", err)
	}
	if failed || err != nil {
		os.Exit(1)
	}
}

// run does what the arguments say; true if a build failed.
func run(address, name, folder string, solve bool, arguments []string) (bool, error) {
	if len(arguments) == 0 {
		return false, errors.New("say what to do: turns, many, kept or fields")
	}
	if arguments[0] == "fields" {
		told := messages{}
		told.add((&control.SolveRequest{}).ProtoReflect().Descriptor())
		return false, json.NewEncoder(os.Stdout).Encode(told)
	}
	ctx := context.Background()
	b, err := connect(ctx, address, name, folder)
	if err != nil {
		return false, err
	}
	defer b.Close()
	b.byLLB = solve
	flags := flag.NewFlagSet(arguments[0], flag.ExitOnError)
	switch arguments[0] {
	case "turns":
		builds := flags.Int("builds", 1, "how many")
		flags.Parse(arguments[1:])
		for number := range *builds {
			b.build(ctx, number+1)
		}
	case "many":
		targets := flags.Int("targets", 1, "how many")
		flags.Parse(arguments[1:])
		err = b.many(ctx, *targets)
	case "kept":
		lines := bufio.NewScanner(os.Stdin)
		for number := 1; lines.Scan(); number++ {
			b.build(ctx, number)
		}
		err = lines.Err()
	default:
		err = fmt.Errorf("%s is none of turns, many, kept and fields", arguments[0])
	}
	return b.failed, err
}

// connect prepares the connection, which the first request opens.
func connect(ctx context.Context, address, name, folder string) (*builder, error) {
	b := &builder{}
	dial := func(ctx context.Context, address string) (net.Conn, error) {
		b.opened.Add(1)
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	options := []client.ClientOpt{
		client.WithContextDialer(dial),
		client.WithServerConfig(name, filepath.Join(folder, "ca.pem")),
		client.WithCredentials(filepath.Join(folder, "cert.pem"), filepath.Join(folder, "key.pem")),
	}
	var err error
	b.Client, err = client.New(ctx, address, options...)
	return b, err
}

// build has one file made, and looks at what came back.
func (b *builder) build(ctx context.Context, number int) {
	began := time.Now()
	b.tell(number, began, b.one(ctx, number))
}

func (b *builder) one(ctx context.Context, number int) error {
	out, err := os.MkdirTemp("", "goclient-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(out)
	content := fmt.Sprintf("%d of %d\n", number, os.Getpid())
	definition, err := file(ctx, content)
	if err != nil {
		return err
	}
	options := client.SolveOpt{Exports: []client.ExportEntry{{Type: client.ExporterLocal, OutputDir: out}}}
	if b.byLLB {
		_, err = b.Solve(ctx, definition, options, nil)
	} else {
		_, err = b.Build(ctx, options, "", solving(definition), nil)
	}
	if err != nil {
		return err
	}
	found, err := os.ReadFile(filepath.Join(out, "built"))
	if err == nil && string(found) != content {
		err = fmt.Errorf("the build has %q instead of %q", found, content)
	}
	return err
}

// many builds all targets at once over one session, as a bake does. None goes on before all have begun:
// so do targets that are linked wait for each other.
func (b *builder) many(ctx context.Context, targets int) error {
	shared, err := session.NewSession(ctx, "")
	if err != nil {
		return err
	}
	// As buildx does: without a slot, its session would not be taken.
	if _, err := b.ListWorkers(ctx); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- shared.Run(ctx, b.Dialer()) }()
	var all, begun sync.WaitGroup
	begun.Add(targets)
	for number := range targets {
		all.Go(func() {
			began := time.Now()
			begins := sync.OnceFunc(begun.Done)
			// Should it fail before, the others need not wait for it.
			defer begins()
			definition, err := file(ctx, fmt.Sprintf("target %d of %d\n", number+1, os.Getpid()))
			if err == nil {
				options := client.SolveOpt{SharedSession: shared, SessionPreInitialized: true}
				_, err = b.Build(ctx, options, "", func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
					begins()
					begun.Wait()
					return solving(definition)(ctx, c)
				}, nil)
			}
			b.tell(number+1, began, err)
		})
	}
	all.Wait()
	shared.Close()
	return <-ended
}

// tell prints what became of a build.
func (b *builder) tell(number int, began time.Time, err error) {
	line := told{Build: number, Seconds: time.Since(began).Seconds(), Connections: b.opened.Load()}
	if err != nil {
		line.Code, line.Error = grpcerrors.Code(err).String(), err.Error()
	}
	b.mutex.Lock()
	defer b.mutex.Unlock()
	b.failed = b.failed || err != nil
	if err := json.NewEncoder(os.Stdout).Encode(line); err != nil {
		panic(err)
	}
}

// file is the definition of a build that needs no image: one file with this content.
func file(ctx context.Context, content string) (*llb.Definition, error) {
	return llb.Scratch().File(llb.Mkfile("/built", 0o644, []byte(content))).Marshal(ctx)
}

// solving is a frontend that has a definition built, and evaluated.
func solving(definition *llb.Definition) gateway.BuildFunc {
	return func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		return c.Solve(ctx, gateway.SolveRequest{Definition: definition.ToPB(), Evaluate: true})
	}
}

// messages has the numbers of all fields, by the names of messages and fields.
type messages map[protoreflect.Name]map[protoreflect.Name]protoreflect.FieldNumber

// add adds a message, and those of the same file that are in its fields.
func (m messages) add(message protoreflect.MessageDescriptor) {
	if m[message.Name()] != nil {
		return
	}
	numbers := map[protoreflect.Name]protoreflect.FieldNumber{}
	m[message.Name()] = numbers
	fields := message.Fields()
	for at := range fields.Len() {
		field := fields.Get(at)
		numbers[field.Name()] = field.Number()
		if inner := field.Message(); inner != nil && !field.IsMap() && inner.ParentFile() == message.ParentFile() {
			m.add(inner)
		}
	}
}
