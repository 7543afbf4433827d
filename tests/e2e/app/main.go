// Command app is an app of the cluster as far as mail goes: it sends by Go's net/smtp and crypto/tls, so by a client that shares
// nothing with Postroad. The end-to-end suite runs it in pods. Standard library only.
//
//	app send   one message; prints what the server said; exit code 0 accepted, 1 refused for good, 2 anything that may be retried
//	app load   waits for orders over HTTP (load.go) and keeps a ledger of what was acknowledged
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/textproto"
	"os"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: app send|load [flags]")
		os.Exit(64)
	}
	var server Server
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	server.Flags(flags)
	switch os.Args[1] {
	case "send":
		token := flags.String("token", "", "token of the message")
		_ = flags.Parse(os.Args[2:]) // ExitOnError
		os.Exit(send(server, *token))
	case "load":
		control := flags.String("control", ":8080", "address of the control port")
		_ = flags.Parse(os.Args[2:]) // ExitOnError
		fmt.Fprintln(os.Stderr, serveLoad(server, *control))
		os.Exit(1)
	}
	fmt.Fprintf(os.Stderr, "no command %q: say send or load\n", os.Args[1])
	os.Exit(64)
}

// reachableLimit bounds the wait for a Service: its endpoints reach each node's kube-proxy some time after the pods are ready, and
// until then connections are refused. No server has said anything by then.
const reachableLimit = 30 * time.Second

func openWhenReachable(server Server) (*Session, error) {
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		session, err := server.Open()
		if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(begin) > reachableLimit {
			return session, err
		}
	}
}

func send(server Server, token string) int {
	session, err := openWhenReachable(server)
	if err == nil {
		defer session.Close()
		err = session.Send(token)
	}
	if err == nil {
		fmt.Println("accepted")
		return 0
	}
	var reply *textproto.Error
	if errors.As(err, &reply) {
		fmt.Println(reply.Code, reply.Msg) // as it came: the error's own text quotes it
	} else {
		fmt.Println(err)
	}
	if refusedForGood(err) {
		return 1
	}
	return 2
}

// refusedForGood tells a permanent negative reply (RFC 5321 §4.2.1) from everything that a client may try again.
func refusedForGood(err error) bool {
	var reply *textproto.Error
	return errors.As(err, &reply) && reply.Code >= 500
}
