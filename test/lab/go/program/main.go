// The program in every image of the lab. Each argument is an order; without one it waits to be
// ended, which is what a pod's pause container does.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	marker, _ := os.ReadFile("/marker")
	host, _ := os.Hostname()
	for _, order := range os.Args[1:] {
		switch order {
		case "serve":
			go http.ListenAndServe(":8080", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprintf(w, "%s on %s\n", marker, host)
			}))
		case "done":
			fmt.Println("done")
			os.Exit(0)
		case "crash":
			fmt.Println("crashing, as ordered")
			os.Exit(1)
		case "fail":
			os.Exit(3)
		case "wait":
			waitForEnd()
			return
		default:
			fmt.Println("unknown order:", order)
			os.Exit(2)
		}
	}
	waitForEnd()
}

func waitForEnd() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}
