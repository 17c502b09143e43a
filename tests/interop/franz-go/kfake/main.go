// kfake runs franz-go's fake cluster in a process of its own, for clients that are not written in Go.
//
// It prints the bootstrap addresses, then obeys one command a line from its standard input, answering
// each with "ok" or why not, and ends when the input does:
//
//	topic NAME PARTITIONS     creates a topic
//	leader NAME PARTITION ID  moves a partition to another broker
//	down ID                   the broker is gone: its port refuses, its connections are cut
//	up ID                     it is back, on its old port
package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
)

const brokers = 3

// listener keeps the connections that it gave out, so that a broker can be gone with all of them: the
// fake itself stops to listen and serves who is there.
type listener struct {
	net.Listener
	mu          sync.Mutex
	connections []net.Conn
}

func (l *listener) Accept() (net.Conn, error) {
	connection, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.connections = append(l.connections, connection)
		l.mu.Unlock()
	}
	return connection, err
}

func (l *listener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, connection := range l.connections {
		_ = connection.Close()
	}
	l.connections = nil
}

type cluster struct {
	*kfake.Cluster
	mu sync.Mutex
	// listeners by port, ports by broker.
	listeners map[int]*listener
	ports     map[int32]int
}

func (c *cluster) listen(network, address string) (net.Listener, error) {
	inner, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	l := &listener{Listener: inner}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.listeners[inner.Addr().(*net.TCPAddr).Port] = l
	return l, nil
}

func start() (*cluster, error) {
	c := &cluster{listeners: map[int]*listener{}, ports: map[int32]int{}}
	var err error
	c.Cluster, err = kfake.NewCluster(kfake.NumBrokers(brokers), kfake.ListenFn(c.listen))
	if err != nil {
		return nil, err
	}
	// Brokers are numbered from 0, in the order of their addresses.
	for id, address := range c.ListenAddrs() {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		if c.ports[int32(id)], err = strconv.Atoi(port); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *cluster) obey(line string) error {
	words := strings.Fields(line)
	number := func(i int) int32 {
		n, err := strconv.ParseInt(words[i], 10, 32)
		if err != nil {
			return -1
		}
		return int32(n)
	}
	switch {
	case len(words) == 3 && words[0] == "topic":
		return c.CreateTopic(words[1], number(2), nil)
	case len(words) == 4 && words[0] == "leader":
		return c.MoveTopicPartition(words[1], number(2), number(3))
	case len(words) == 2 && words[0] == "down":
		port, known := c.ports[number(1)]
		if !known {
			return errors.New("no such broker")
		}
		if err := c.RemoveNode(number(1)); err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.listeners[port].cut()
		return nil
	case len(words) == 2 && words[0] == "up":
		_, _, err := c.AddNode(number(1), c.ports[number(1)])
		return err
	default:
		return fmt.Errorf("what is %q?", line)
	}
}

func main() {
	c, err := start()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	defer c.Close()
	fmt.Println(strings.Join(c.ListenAddrs(), ","))
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		if err := c.obey(lines.Text()); err != nil {
			fmt.Println(err)
		} else {
			fmt.Println("ok")
		}
	}
}
