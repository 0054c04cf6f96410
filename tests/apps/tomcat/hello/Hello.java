// A web app that is well: it says its version and its process, and can be slow, or fail, on demand.
package hello;

import jakarta.servlet.annotation.WebServlet;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.io.InputStream;

@WebServlet(urlPatterns = "/", loadOnStartup = 1)
public class Hello extends HttpServlet {
    private volatile String version = "unknown";

    @Override
    public void init() {
        try (InputStream in = Hello.class.getResourceAsStream("/version.txt")) {
            version = new String(in.readAllBytes()).trim();
        } catch (IOException error) {
            throw new IllegalStateException(error);
        }
        System.out.println("hello " + version + " is up");
    }

    @Override
    protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
        response.setContentType("text/plain");
        switch (request.getServletPath()) {
            case "/slow":
                pause(300);
                say(response, "slow " + version);
                break;
            case "/heap":
                say(response, Long.toString(Runtime.getRuntime().maxMemory() >> 20));
                break;
            case "/remote":
                say(response, request.getScheme() + " " + request.getRemoteAddr());
                break;
            case "/hang":
                pause(600_000);
                break;
            case "/exit":
                Runtime.getRuntime().halt(3);
                break;
            default:
                say(response, "hello " + version + " pid=" + ProcessHandle.current().pid());
        }
    }

    /** What changes something is not sent again when it gets no answer. */
    @Override
    protected void doPost(HttpServletRequest request, HttpServletResponse response) throws IOException {
        doGet(request, response);
    }

    private static void say(HttpServletResponse response, String text) throws IOException {
        response.getWriter().println(text);
    }

    private static void pause(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        }
    }
}
